"""Token constraints: what a step may choose, and its log-probabilities."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from data.batch import EOS, UNK
from decode import topk
from decode.loop import NextToken
from decode.options import SearchOptions


class TokenConstraints(NamedTuple):
    """What a step may choose, and what its log-probabilities are of; as in SearchOptions."""

    min_length: int = 1  # EOS may not end an output before
    allow_unknown: bool = False  # UNK may be chosen
    renormalize: bool = False  # what may not be chosen does not count in their sum
    forced_bos_id: int = 0  # the id that every output begins with, at no cost; 0: any

    @classmethod
    def from_options(cls, options: SearchOptions) -> "TokenConstraints":
        """Those of a search."""
        o = options
        return cls(o.min_length, o.allow_unknown, o.renormalize, o.forced_bos_id)


RULES = TokenConstraints()


def next_token(
    logits: Array, first: Array, vocab: int, index: Array, rules: TokenConstraints
) -> NextToken:
    """Logits [B,W,V or more], and [B,W,UNK+1] of the first ids -> Next, after `index` tokens.

    What is no text, or only fills a block, is not chosen, nor EOS where it is too early.
    """
    ids = jnp.arange(UNK + 1, dtype=jnp.int32)[None, None]
    chosen = (ids == EOS) & (index + 1 >= rules.min_length)
    if rules.allow_unknown:
        chosen |= ids == UNK
    # In rows as the product made them: of an array in three axes XLA changes a copy.
    text = logits.reshape(-1, logits.shape[-1])
    text = text.at[:, : UNK + 1].set(jnp.where(chosen, first, -jnp.inf).reshape(-1, UNK + 1))
    text = text.at[:, vocab:].set(-jnp.inf).reshape(logits.shape)
    highest = jnp.maximum(topk.blockwise_max(text), first.max(-1))[..., None]
    hidden = jnp.where(chosen | rules.renormalize, 0.0, jnp.exp(first - highest)).sum(-1)
    total = jnp.log(jnp.exp(text - highest).sum(-1) + hidden) + highest[..., 0]
    if rules.forced_bos_id:
        begun = index > 0
        only = jnp.arange(text.shape[-1], dtype=jnp.int32)[None, None] == rules.forced_bos_id
        text = jnp.where(begun, text, jnp.where(only, 0.0, -jnp.inf))
        total = jnp.where(begun, total, 0.0)
    return NextToken(text, total, first[..., EOS])
