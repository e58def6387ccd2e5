"""Prefix constraint: per beam, the tokens that may continue a prefix that ends inside a word.

Axes: B batch, W beam, V vocabulary, L buffer length, S states of a completion, M tokens that stay
within the rest of the word. State S means that the word is complete.
"""

from collections.abc import Sequence
from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from data.batch import EOS, Numbers
from decode.prefix_completion import Completion
from decode.transforms import BITS, Transform, beam_indices, sized, unpacked

NO_TOKEN = -1  # padding


class Completions(NamedTuple, Generic[Numbers]):
    """Completions of B sentences; a sentence without one begins in state S."""

    begins: Numbers  # [B] int32: the first state
    ends: Numbers  # [B,S,V/32] uint32: bits of the tokens that complete the word
    ids: Numbers  # [B,S,M] int32: the tokens that stay within it, or NO_TOKEN
    states: Numbers  # [B,S,M] int32: the state after each of `ids`
    needs: Numbers  # [B,S,M] int32: the fewest tokens that must follow each
    owed: Numbers  # [B] int32: tokens of required phrases, for which room is reserved


class Sizes(NamedTuple):
    """Padded sizes of the completions of a call, powers of two: S and M."""

    states: int = 0
    steps: int = 0


def sizes(completions: Sequence[Completion | None]) -> Sizes:
    """The sizes that hold all completions; few values, since each is a compilation."""
    present = [completion for completion in completions if completion is not None]
    if not present:
        return Sizes()
    states = max(len(completion.ends) for completion in present)
    steps = max(len(ahead) for completion in present for ahead in completion.steps)
    return Sizes(*(max(8, 1 << (count - 1).bit_length()) for count in (states, max(1, steps))))


def pack(
    completions: Sequence[Completion | None],
    owed: Sequence[int],
    allowed: Sequence[np.ndarray | None],
    rows: int,
    vocab: int,
    sizes: Sizes,
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
        np.array([*owed, *[0] * (rows - len(owed))], np.int32),
    )
    for row, (completion, bits) in enumerate(zip(completions, allowed, strict=True)):
        if completion is None:
            continue
        if bits is not None:
            completion = completion.among(
                np.unpackbits(bits.view(np.uint8), bitorder="little").astype(bool)
            )
        result.begins[row] = 0
        needs = completion.needs()
        for state, (ends, ahead) in enumerate(zip(completion.ends, completion.steps, strict=True)):
            mask = np.zeros(words * BITS, bool)
            mask[[*ends, EOS] if completion.optional else ends] = True
            result.ends[row, state] = np.packbits(mask, bitorder="little").view("<u4")
            possible = ((id, to, n) for id, to in ahead.items() if (n := needs[to]) is not None)
            for column, (id, to, following) in enumerate(possible):
                result.ids[row, state, column] = id
                result.states[row, state, column] = to
                result.needs[row, state, column] = following
    return result


def completing(c: Completions, written: Array, limits: Array, then: Transform) -> Transform:
    """Restrict outputs to the completions `c` after their first `written` [B] tokens.

    Tokens that fit no completion are masked before `then` is applied to the rest; once the word is
    complete, `then` alone applies. Room is always reserved, up to `limits` [B], for the rest of the
    word and for required phrases.
    """
    batch, count, _ = c.ids.shape

    def lookup(
        values: Array, state: Array
    ) -> Array:  # [B,S,..], [B,W] -> [B,W,..]; state S reads the last
        return values[jnp.arange(batch)[:, None], jnp.minimum(state, count - 1)]

    def state_of(tokens: Array, index: Array) -> Array:  # [B,W]
        def advance(number, state):
            position = (written + number)[:, None]  # [B,1]
            column = jnp.minimum(position, tokens.shape[2] - 1)[..., None]
            same = lookup(c.ids, state) == jnp.take_along_axis(tokens, column, axis=2)
            after = jnp.where(same, lookup(c.states, state), 0).sum(-1, dtype=jnp.int32)
            after = jnp.where(same.any(-1), after, count)
            return jnp.where((position < index) & (state < count), after, state)

        first = jnp.broadcast_to(c.begins[:, None], tokens.shape[:2])
        return jax.lax.fori_loop(0, jnp.minimum(index, count), advance, first)

    def apply(log_probs, tokens, index):
        state = state_of(tokens, index)
        ids = lookup(c.ids, state)  # [B,W,M]
        left = (limits - index - 2 - c.owed)[:, None, None]  # after the next token, without EOS
        fits = (ids != NO_TOKEN) & (lookup(c.needs, state) <= left)
        allowed = sized(unpacked(lookup(c.ends, state)), log_probs.shape[-1])
        allowed = allowed.at[*beam_indices(ids), ids].max(fits)
        allowed |= (state == count)[..., None]
        return then(jnp.where(allowed, log_probs, -jnp.inf), tokens, index)

    return apply
