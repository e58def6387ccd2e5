"""Transforms of log-probabilities: temperature, top-k, top-p, bans, repetition.

A `Transform` is (log_probs [B,W,V], tokens so far [B,W,L], index) -> log_probs [B,W,V]; forbidden
tokens become -inf. `tokens` holds an output's first `index` tokens, followed by arbitrary values.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Transform = Callable[[Array, Array, Array], Array]


def chain(*transforms: Transform) -> Transform:
    """Apply transforms in order."""

    def apply(log_probs, tokens, index):
        for transform in transforms:
            log_probs = transform(log_probs, tokens, index)
        return log_probs

    return apply


def forced_prefix(prefix: Array, lengths: Array, inner: Transform) -> Transform:
    """Force outputs to begin with `prefix` [B,P], with `lengths` [B] tokens.

    `inner` is applied after the prefix only, so it cannot forbid tokens of the prefix.
    """

    def apply(log_probs, tokens, index):
        column = jnp.minimum(index, prefix.shape[1] - 1)
        token = jax.lax.dynamic_index_in_dim(prefix, column, 1)[..., None]  # [B,1,1]
        forced = jnp.where(_ids(log_probs) == token, log_probs, -jnp.inf)
        in_prefix = (index < lengths)[:, None, None]
        return jnp.where(in_prefix, forced, inner(log_probs, tokens, index))

    return apply


BITS = 32  # bits in a word of a mask


def restrict_to(bits: Array) -> Transform:
    """Allow only tokens whose bit is set: `bits` [B, V / 32, rounded up] uint32."""
    mask = unpack_bits(bits)

    def apply(log_probs, tokens, index):
        allowed = resize_mask(mask, log_probs.shape[-1])[:, None]
        return jnp.where(allowed, log_probs, -jnp.inf)

    return apply


def unpack_bits(bits: Array) -> Array:
    """Unpack bits [..., N] uint32, the lowest first, to [..., N * 32] bool."""
    bit_positions = jnp.arange(BITS, dtype=jnp.uint32).reshape((1,) * bits.ndim + (BITS,))
    return ((bits[..., None] >> bit_positions) & 1).astype(bool).reshape(*bits.shape[:-1], -1)


def resize_mask(mask: Array, size: int) -> Array:
    """Resize a mask [..., V] to `size` log-probabilities; padding is masked."""
    padding = [(0, 0)] * (mask.ndim - 1) + [(0, max(0, size - mask.shape[-1]))]
    return jnp.pad(mask, padding)[..., :size]


def ban_phrases(phrases: Sequence[Sequence[int]]) -> Transform:
    """Ban sequences of ids; a sequence of a single id bans that token."""
    sizes = sorted({len(phrase) for phrase in phrases})
    ids_by_size = {n: np.array([p for p in phrases if len(p) == n], np.int32) for n in sizes}

    def apply(log_probs, tokens, index):
        hits = jnp.zeros(log_probs.shape, bool)
        for size, ids in ids_by_size.items():
            context = size - 1
            if context > tokens.shape[2]:
                continue  # longer than any output
            start = jnp.maximum(index - context, 0)
            latest = jax.lax.dynamic_slice_in_dim(tokens, start, context, axis=2)
            equal = latest[:, :, None] == jnp.asarray(ids[:, :-1])[None, None]
            hits = hits.at[..., jnp.asarray(ids[:, -1])].max(equal.all(-1) & (index >= context))
        return jnp.where(hits, -jnp.inf, log_probs)

    return apply


def no_repeat_ngrams(size: int) -> Transform:
    """Ban n-grams of `size` tokens that already occur in the output (Paulus et al. 2018)."""

    def apply(log_probs, tokens, index):
        context, length = size - 1, tokens.shape[2]
        if context >= length:
            return log_probs
        latest = jax.lax.dynamic_slice_in_dim(
            tokens, jnp.maximum(index - context, 0), context, axis=2
        )
        starts = jnp.arange(length - context, dtype=jnp.int32)
        windows = tokens[..., starts[:, None] + jnp.arange(context, dtype=jnp.int32)[None]]
        # A window counts if it and the token after it are within the written tokens.
        repeated = (windows == latest[:, :, None]).all(-1) & (starts + context < index)[None, None]
        after = tokens[..., context:]
        hits = jnp.zeros(log_probs.shape, bool).at[*beam_indices(tokens), after].max(repeated)
        return jnp.where(hits, -jnp.inf, log_probs)

    return apply


def repetition_penalty(penalty: float) -> Transform:
    """Multiply log-probabilities of previous tokens by `penalty` (Keskar et al. 2019; 1: none)."""

    def apply(log_probs, tokens, index):
        written = jnp.broadcast_to(
            (jnp.arange(tokens.shape[2], dtype=jnp.int32) < index)[None, None], tokens.shape
        )
        repeated = jnp.zeros(log_probs.shape, bool).at[*beam_indices(tokens), tokens].max(written)
        return jnp.where(repeated, log_probs * penalty, log_probs)

    return apply


def temperature(value: float) -> Transform:
    """Divide log_probs by `value` and renormalize: below 1 sharper, above 1 flatter."""
    return lambda log_probs, tokens, index: jax.nn.log_softmax(log_probs / value)


def top_k(count: int) -> Transform:
    """Keep the `count` likeliest tokens, lower ids first among equals (Fan et al. 2018)."""

    def apply(log_probs, tokens, index):
        # Select by index, not by value: the compiler may compute a value twice, and the copies may
        # differ in the last bit.
        _, best = jax.lax.top_k(log_probs, min(count, log_probs.shape[-1]))
        return _keep_only(log_probs, best, jnp.ones(best.shape, bool))

    return apply


def top_p(mass: float) -> Transform:
    """Keep the fewest likeliest tokens whose probabilities reach `mass` (Holtzman et al. 2020)."""

    def apply(log_probs, tokens, index):
        order = jnp.argsort(-log_probs, axis=-1)
        ranked = jax.nn.softmax(jnp.take_along_axis(log_probs, order, axis=-1))
        mass_before = jnp.cumsum(ranked, axis=-1) - ranked
        return _keep_only(log_probs, order, mass_before < mass)

    return apply


def min_p(ratio: float) -> Transform:
    """Keep tokens at least `ratio` times as likely as the likeliest (Nguyen et al. 2024)."""

    def apply(log_probs, tokens, index):
        # Slightly lower, so that rounding does not mask the likeliest token.
        threshold = log_probs.max(-1, keepdims=True) + float(np.log(ratio)) - 1e-6
        return jnp.where(log_probs < threshold, -jnp.inf, log_probs)

    return apply


def _keep_only(log_probs: Array, indices: Array, allowed: Array) -> Array:
    """Set all but the `allowed` [B,W,N] of `indices` [B,W,N] to -inf."""
    empty = jnp.zeros(log_probs.shape, bool)
    mask = jnp.put_along_axis(empty, indices, allowed, axis=-1, inplace=False)
    return jnp.where(mask, log_probs, -jnp.inf)


def _ids(log_probs: Array) -> Array:
    return jnp.arange(log_probs.shape[-1], dtype=jnp.int32)[None, None]


def beam_indices(x: Array) -> tuple[Array, Array]:
    """Indices [B,1,1] and [1,W,1] that, with indices [B,W,R], index each beam of x [B,W,...]."""
    batch, width = x.shape[:2]
    return jnp.arange(batch)[:, None, None], jnp.arange(width)[None, :, None]
