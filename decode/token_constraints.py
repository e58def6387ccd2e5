"""Token constraints: allowed tokens of a step, and their log-probabilities."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from data.batch import EOS, UNK
from decode import topk
from decode.loop import NextToken
from decode.options import SearchOptions
from model.platform import current_platform


class TokenConstraints(NamedTuple):
    """Allowed tokens and normalization of a step; fields as in SearchOptions."""

    min_length: int = 1  # shortest output, EOS included
    allow_unknown: bool = False  # UNK is allowed
    renormalize: bool = False  # forbidden tokens do not count in the sum
    forced_bos_id: int = 0  # the first id of every output, at no cost; 0: any

    @classmethod
    def from_options(cls, options: SearchOptions) -> "TokenConstraints":
        """Token constraints of search options."""
        o = options
        return cls(o.min_length, o.allow_unknown, o.renormalize, o.forced_bos_id)


RULES = TokenConstraints()


def next_token(
    logits: Array, special_logits: Array, vocab: int, index: Array, rules: TokenConstraints
) -> NextToken:
    """Logits [B,W,V or more], [B,W,UNK+1] of the special ids -> NextToken, after `index` tokens.

    Special tokens and the padding of blocks are masked, and EOS before `min_length`.
    """
    ids = jnp.arange(UNK + 1, dtype=jnp.int32)[None, None]
    allowed = (ids == EOS) & (index + 1 >= rules.min_length)
    if rules.allow_unknown:
        allowed |= ids == UNK
    # Update the product's two-dimensional result: with three axes XLA would copy it.
    text = logits.reshape(-1, logits.shape[-1])
    special = jnp.where(allowed, special_logits, -jnp.inf).reshape(-1, UNK + 1)
    text = _with_special(text, special, vocab).reshape(logits.shape)
    highest = jnp.maximum(topk.blockwise_max(text), special_logits.max(-1))[..., None]
    special_exp = jnp.exp(special_logits - highest)
    special_sum = jnp.where(allowed | rules.renormalize, 0.0, special_exp).sum(-1)
    log_normalizer = jnp.log(jnp.exp(text - highest).sum(-1) + special_sum) + highest[..., 0]
    if rules.forced_bos_id:
        later_step = index > 0
        is_bos = jnp.arange(text.shape[-1], dtype=jnp.int32)[None, None] == rules.forced_bos_id
        text = jnp.where(later_step, text, jnp.where(is_bos, 0.0, -jnp.inf))
        log_normalizer = jnp.where(later_step, log_normalizer, 0.0)
    return NextToken(text, log_normalizer, special_logits[..., EOS])


def _with_special(text: Array, special: Array, vocab: int) -> Array:
    """text [N,V or more] with the logits `special` [N,UNK+1] of the first ids, and no padding."""
    if current_platform() == "cpu":  # in place
        return text.at[:, : UNK + 1].set(special).at[:, vocab:].set(-jnp.inf)
    # Elementwise: other compilers do this while they compute the logits.
    ids = jnp.arange(text.shape[-1], dtype=jnp.int32)[None]
    for id in range(UNK + 1):
        text = jnp.where(ids == id, special[:, id : id + 1], text)
    return jnp.where(ids < vocab, text, -jnp.inf)
