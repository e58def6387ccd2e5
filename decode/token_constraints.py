"""Token constraints: allowed tokens of a step, and their log-probabilities."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from data.batch import EOS, UNK
from decode import topk
from decode.loop import NextToken
from decode.options import SearchOptions


class TokenConstraints(NamedTuple):
    """Allowed tokens and normalization of a step; fields as in SearchOptions."""

    min_length: int = 1  # shortest output, EOS included
    allow_unknown: bool = False  # UNK may be chosen
    renormalize: bool = False  # forbidden tokens do not count in the sum
    forced_bos_id: int = 0  # the first id of every output, at no cost; 0: any

    @classmethod
    def from_options(cls, options: SearchOptions) -> "TokenConstraints":
        """Token constraints of search options."""
        o = options
        return cls(o.min_length, o.allow_unknown, o.renormalize, o.forced_bos_id)


RULES = TokenConstraints()


def next_token(
    logits: Array, first: Array, vocab: int, index: Array, rules: TokenConstraints
) -> NextToken:
    """Logits [B,W,V or more], and [B,W,UNK+1] of the first ids -> NextToken, after `index` tokens.

    Special tokens and padding of blocks are not chosen, nor EOS before `min_length`.
    """
    ids = jnp.arange(UNK + 1, dtype=jnp.int32)[None, None]
    chosen = (ids == EOS) & (index + 1 >= rules.min_length)
    if rules.allow_unknown:
        chosen |= ids == UNK
    # Update the product's two-dimensional result: with three axes XLA would copy it.
    text = logits.reshape(-1, logits.shape[-1])
    text = text.at[:, : UNK + 1].set(jnp.where(chosen, first, -jnp.inf).reshape(-1, UNK + 1))
    text = text.at[:, vocab:].set(-jnp.inf).reshape(logits.shape)
    highest = jnp.maximum(topk.blockwise_max(text), first.max(-1))[..., None]
    hidden = jnp.where(chosen | rules.renormalize, 0.0, jnp.exp(first - highest)).sum(-1)
    total = jnp.log(jnp.exp(text - highest).sum(-1) + hidden) + highest[..., 0]
    if rules.forced_bos_id:
        after_first = index > 0
        only = jnp.arange(text.shape[-1], dtype=jnp.int32)[None, None] == rules.forced_bos_id
        text = jnp.where(after_first, text, jnp.where(only, 0.0, -jnp.inf))
        total = jnp.where(after_first, total, 0.0)
    return NextToken(text, total, first[..., EOS])
