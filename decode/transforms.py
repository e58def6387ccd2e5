"""Transforms of log-probabilities: temperature, top-k, top-p, bans, repetition.

A `Transform` is (log_probs [B,W,V], tokens so far [B,W,L], index) -> log_probs [B,W,V]; what it
forbids becomes -inf. `tokens` holds an output's first `index` tokens, and anything after them.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Transform = Callable[[Array, Array, Array], Array]


def chain(*transforms: Transform) -> Transform:
    """One after the other, first to last."""

    def apply(log_probs, tokens, index):
        for transform in transforms:
            log_probs = transform(log_probs, tokens, index)
        return log_probs

    return apply


def forced_prefix(prefix: Array, lengths: Array, then: Transform) -> Transform:
    """Outputs begin with `prefix` [B,P], of which `lengths` [B] tokens are real, whatever `then`.

    `then` is applied after the prefix only: what was asked for outright is not to be forbidden.
    """

    def apply(log_probs, tokens, index):
        column = jnp.minimum(index, prefix.shape[1] - 1)
        token = jax.lax.dynamic_index_in_dim(prefix, column, 1)[..., None]  # [B,1,1]
        only = jnp.where(_ids(log_probs) == token, log_probs, -jnp.inf)
        forced = (index < lengths)[:, None, None]
        return jnp.where(forced, only, then(log_probs, tokens, index))

    return apply


BITS = 32  # bits of a word of `only`


def restrict_to(bits: Array) -> Transform:
    """Nothing but what has its bit set: `bits` [B, V / 32, rounded up] uint32."""
    mask = unpacked(bits)

    def apply(log_probs, tokens, index):
        allowed = sized(mask, log_probs.shape[-1])[:, None]
        return jnp.where(allowed, log_probs, -jnp.inf)

    return apply


def unpacked(bits: Array) -> Array:
    """Bits [..., N] uint32, the lowest first, as [..., N * 32] bool."""
    places = jnp.arange(BITS, dtype=jnp.uint32).reshape((1,) * bits.ndim + (BITS,))
    return ((bits[..., None] >> places) & 1).astype(bool).reshape(*bits.shape[:-1], -1)


def sized(mask: Array, size: int) -> Array:
    """A mask [..., V] for log-probabilities of `size`: what fills a block is never chosen."""
    room = [(0, 0)] * (mask.ndim - 1) + [(0, max(0, size - mask.shape[-1]))]
    return jnp.pad(mask, room)[..., :size]


def ban_phrases(phrases: Sequence[Sequence[int]]) -> Transform:
    """None of these sequences of ids occurs; one of a single id bans that token."""
    sizes = sorted({len(phrase) for phrase in phrases})
    of_size = {n: np.array([p for p in phrases if len(p) == n], np.int32) for n in sizes}

    def apply(log_probs, tokens, index):
        hits = jnp.zeros(log_probs.shape, bool)
        for size, ids in of_size.items():
            before = size - 1
            if before > tokens.shape[2]:
                continue  # longer than any output
            start = jnp.maximum(index - before, 0)
            latest = jax.lax.dynamic_slice_in_dim(tokens, start, before, axis=2)
            same = latest[:, :, None] == jnp.asarray(ids[:, :-1])[None, None]
            hits = hits.at[..., jnp.asarray(ids[:, -1])].max(same.all(-1) & (index >= before))
        return jnp.where(hits, -jnp.inf, log_probs)

    return apply


def no_repeat_ngrams(size: int) -> Transform:
    """No `size` tokens in a row occur twice in an output (Paulus et al. 2018)."""

    def apply(log_probs, tokens, index):
        context, length = size - 1, tokens.shape[2]
        if context >= length:
            return log_probs
        latest = jax.lax.dynamic_slice_in_dim(
            tokens, jnp.maximum(index - context, 0), context, axis=2
        )
        starts = jnp.arange(length - context, dtype=jnp.int32)
        windows = tokens[..., starts[:, None] + jnp.arange(context, dtype=jnp.int32)[None]]
        # A window counts if it and the token after it lie within what has been written.
        seen = (windows == latest[:, :, None]).all(-1) & (starts + context < index)[None, None]
        after = tokens[..., context:]
        hits = jnp.zeros(log_probs.shape, bool).at[*beam_indices(tokens), after].max(seen)
        return jnp.where(hits, -jnp.inf, log_probs)

    return apply


def repetition_penalty(penalty: float) -> Transform:
    """Log-probabilities of tokens already there times `penalty` (Keskar et al. 2019; 1: none)."""

    def apply(log_probs, tokens, index):
        written = jnp.broadcast_to(
            (jnp.arange(tokens.shape[2], dtype=jnp.int32) < index)[None, None], tokens.shape
        )
        seen = jnp.zeros(log_probs.shape, bool).at[*beam_indices(tokens), tokens].max(written)
        return jnp.where(seen, log_probs * penalty, log_probs)

    return apply


def temperature(value: float) -> Transform:
    """log_probs / `value`, normalised again: below 1 sharper, above 1 flatter."""
    return lambda log_probs, tokens, index: jax.nn.log_softmax(log_probs / value)


def top_k(count: int) -> Transform:
    """Only the `count` likeliest tokens, the lower ids among equals (Fan et al. 2018)."""

    def apply(log_probs, tokens, index):
        # By place and not by value: a value compared with its own copy may differ in the last bit,
        # since the compiler computes it twice.
        _, best = jax.lax.top_k(log_probs, min(count, log_probs.shape[-1]))
        return _only(log_probs, best, jnp.ones(best.shape, bool))

    return apply


def top_p(mass: float) -> Transform:
    """Only the fewest likeliest tokens whose probabilities reach `mass` (Holtzman et al. 2020)."""

    def apply(log_probs, tokens, index):
        order = jnp.argsort(-log_probs, axis=-1)
        ranked = jax.nn.softmax(jnp.take_along_axis(log_probs, order, axis=-1))
        before = jnp.cumsum(ranked, axis=-1) - ranked
        return _only(log_probs, order, before < mass)

    return apply


def min_p(share: float) -> Transform:
    """Only tokens at least `share` times as likely as the likeliest (Nguyen et al. 2024)."""

    def apply(log_probs, tokens, index):
        # A hair less, so that the likeliest itself stays however it is rounded.
        least = log_probs.max(-1, keepdims=True) + float(np.log(share)) - 1e-6
        return jnp.where(log_probs < least, -jnp.inf, log_probs)

    return apply


def _only(log_probs: Array, places: Array, kept: Array) -> Array:
    """-inf but at `places` [B,W,N] that are `kept` [B,W,N]."""
    nowhere = jnp.zeros(log_probs.shape, bool)
    mask = jnp.put_along_axis(nowhere, places, kept, axis=-1, inplace=False)
    return jnp.where(mask, log_probs, -jnp.inf)


def _ids(log_probs: Array) -> Array:
    return jnp.arange(log_probs.shape[-1], dtype=jnp.int32)[None, None]


def beam_indices(x: Array) -> tuple[Array, Array]:
    """Indices [B,1,1] and [1,W,1]: with places [B,W,R] they reach into each beam of x [B,W,...]."""
    batch, width = x.shape[:2]
    return jnp.arange(batch)[:, None, None], jnp.arange(width)[None, :, None]
