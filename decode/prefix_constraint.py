"""Prefix constraint: per beam, the tokens that may continue a prefix that ends inside a word.

Axes: B batch, W beam, V vocabulary, L buffer length, S states of a completion, M tokens that do
not complete the word. In state S the word is complete.
"""

from collections.abc import Sequence
from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from data.batch import EOS, Numbers
from decode.prefix_completion import Completion
from decode.transforms import BITS, Transform, beam_indices, resize_mask, unpack_bits

NO_TOKEN = -1  # padding


class Completions(NamedTuple, Generic[Numbers]):
    """Completions of B sentences; a sentence without one starts in state S."""

    start_state: Numbers  # [B] int32
    ends: Numbers  # [B,S,V/32] uint32: bits of the tokens that complete the word
    ids: Numbers  # [B,S,M] int32: the tokens that do not complete it, or NO_TOKEN
    states: Numbers  # [B,S,M] int32: the state after each of `ids`
    min_tokens: Numbers  # [B,S,M] int32: the minimum number of tokens after each of `ids`
    num_unmet: Numbers  # [B] int32: reserved tokens for required phrases


class CompletionSizes(NamedTuple):
    """Padded sizes of the completions of a call, powers of two: S and M."""

    states: int = 0
    steps: int = 0


def completion_sizes(completions: Sequence[Completion | None]) -> CompletionSizes:
    """The sizes that hold all completions; few values, since each costs a compilation."""
    existing = [completion for completion in completions if completion is not None]
    if not existing:
        return CompletionSizes()
    states = max(len(completion.ends) for completion in existing)
    steps = max(len(step) for completion in existing for step in completion.steps)
    padded = (max(8, 1 << (count - 1).bit_length()) for count in (states, max(1, steps)))
    return CompletionSizes(*padded)


def pack_completions(
    completions: Sequence[Completion | None],
    num_unmet: Sequence[int],
    allowed: Sequence[np.ndarray | None],
    rows: int,
    vocab: int,
    sizes: CompletionSizes,
) -> Completions[np.ndarray]:
    """Pack completions of up to `rows` sentences; `allowed` are the bits of their shortlists."""
    states, steps = sizes
    words = -(-vocab // BITS)
    result = Completions(
        np.full(rows, states, np.int32),
        np.zeros((rows, states, words), np.uint32),
        np.full((rows, states, steps), NO_TOKEN, np.int32),
        np.zeros((rows, states, steps), np.int32),
        np.zeros((rows, states, steps), np.int32),
        np.array([*num_unmet, *[0] * (rows - len(num_unmet))], np.int32),
    )
    for row, (completion, mask_bits) in enumerate(zip(completions, allowed, strict=True)):
        if completion is None:
            continue
        if mask_bits is not None:
            completion = completion.restrict(
                np.unpackbits(mask_bits.view(np.uint8), bitorder="little").astype(bool)
            )
        result.start_state[row] = 0
        min_tokens = completion.min_tokens()
        transitions = zip(completion.ends, completion.steps, strict=True)
        for state, (ends, step) in enumerate(transitions):
            mask = np.zeros(words * BITS, bool)
            mask[[*ends, EOS] if completion.optional else ends] = True
            result.ends[row, state] = np.packbits(mask, bitorder="little").view("<u4")
            possible = ((id, s, n) for id, s in step.items() if (n := min_tokens[s]) is not None)
            for column, (id, next_state, min_following) in enumerate(possible):
                result.ids[row, state, column] = id
                result.states[row, state, column] = next_state
                result.min_tokens[row, state, column] = min_following
    return result


def enforce_completions(
    c: Completions, prefix_lengths: Array, limits: Array, inner: Transform
) -> Transform:
    """Restrict outputs to the completions `c` after their first `prefix_lengths` [B] tokens.

    Tokens that fit no completion are masked before `inner` is applied; after the complete word,
    only `inner` applies. Within `limits` [B], tokens are reserved for the remainder of the word and
    for required phrases.
    """
    batch, count, _ = c.ids.shape

    def lookup(values: Array, state: Array) -> Array:
        """[B,S,..], [B,W] -> [B,W,..]; state S reads the last."""
        return values[jnp.arange(batch)[:, None], jnp.minimum(state, count - 1)]

    def state_of(tokens: Array, index: Array) -> Array:  # [B,W]
        def advance(offset, state):
            position = (prefix_lengths + offset)[:, None]  # [B,1]
            column = jnp.minimum(position, tokens.shape[2] - 1)[..., None]
            equal = lookup(c.ids, state) == jnp.take_along_axis(tokens, column, axis=2)
            next_state = jnp.where(equal, lookup(c.states, state), 0).sum(-1, dtype=jnp.int32)
            next_state = jnp.where(equal.any(-1), next_state, count)
            return jnp.where((position < index) & (state < count), next_state, state)

        initial = jnp.broadcast_to(c.start_state[:, None], tokens.shape[:2])
        return jax.lax.fori_loop(0, jnp.minimum(index, count), advance, initial)

    def apply(log_probs, tokens, index):
        state = state_of(tokens, index)
        ids = lookup(c.ids, state)  # [B,W,M]
        remaining = limits - index - 2 - c.num_unmet  # after the next token, without EOS
        fits = (ids != NO_TOKEN) & (lookup(c.min_tokens, state) <= remaining[:, None, None])
        allowed = resize_mask(unpack_bits(lookup(c.ends, state)), log_probs.shape[-1])
        allowed = allowed.at[*beam_indices(ids), ids].max(fits)
        allowed |= (state == count)[..., None]
        return inner(jnp.where(allowed, log_probs, -jnp.inf), tokens, index)

    return apply
