"""Which tokens may continue a prefix that ends inside a word, per beam.

Axes: B batch, W beam, V vocabulary, L buffer length, S states of a completion, M tokens that stay
within the rest of the word. State S is that all of it has been written.
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

NO_TOKEN = -1  # stands where no token does


class Completions(NamedTuple, Generic[Numbers]):
    """Those of B sentences; a sentence without one begins in state S."""

    begins: Numbers  # [B] int32: the first state
    ends: Numbers  # [B,S,V/32] uint32: bits of the tokens that complete it
    ids: Numbers  # [B,S,M] int32: the tokens that do not, or NOTHING
    states: Numbers  # [B,S,M] int32: the state after each
    needs: Numbers  # [B,S,M] int32: how many tokens have to follow each
    owed: Numbers  # [B] int32: tokens of required phrases, for which room is left as well


class Sizes(NamedTuple):
    """How much the completions of a call need, in powers of two: S and M."""

    states: int = 0
    steps: int = 0


def sizes(each: Sequence[Completion | None]) -> Sizes:
    """What holds all of these; few sizes, for each is a compilation."""
    there = [one for one in each if one is not None]
    if not there:
        return Sizes()
    states = max(len(one.ends) for one in there)
    steps = max(len(ahead) for one in there for ahead in one.steps)
    return Sizes(*(max(8, 1 << (most - 1).bit_length()) for most in (states, max(1, steps))))


def pack(
    each: Sequence[Completion | None],
    owed: Sequence[int],
    allowed: Sequence[np.ndarray | None],
    rows: int,
    vocab: int,
    sizes: Sizes,
) -> Completions[np.ndarray]:
    """The arrays of up to `rows` sentences; `allowed` are the bits of each one's shortlist."""
    states, steps = sizes
    words = -(-vocab // BITS)
    found = Completions(
        np.full(rows, states, np.int32),
        np.zeros((rows, states, words), np.uint32),
        np.full((rows, states, steps), NO_TOKEN, np.int32),
        np.zeros((rows, states, steps), np.int32),
        np.zeros((rows, states, steps), np.int32),
        np.array([*owed, *[0] * (rows - len(owed))], np.int32),
    )
    for row, (one, bits) in enumerate(zip(each, allowed, strict=True)):
        if one is None:
            continue
        if bits is not None:
            one = one.among(np.unpackbits(bits.view(np.uint8), bitorder="little").astype(bool))
        found.begins[row] = 0
        needs = one.needs()
        for state, (ends, ahead) in enumerate(zip(one.ends, one.steps, strict=True)):
            mask = np.zeros(words * BITS, bool)
            mask[[*ends, EOS] if one.optional else ends] = True
            found.ends[row, state] = np.packbits(mask, bitorder="little").view("<u4")
            possible = ((id, to, n) for id, to in ahead.items() if (n := needs[to]) is not None)
            for place, (id, to, least) in enumerate(possible):
                found.ids[row, state, place] = id
                found.states[row, state, place] = to
                found.needs[row, state, place] = least
    return found


def completing(c: Completions, written: Array, limits: Array, then: Transform) -> Transform:
    """Outputs go on from their first `written` [B] tokens as `c` has it, afterwards as `then` does.

    What is no completion is taken away before `then` chooses among the others. Room is always left,
    up to `limits` [B], for the rest of the word and for what is owed.
    """
    batch, count, _ = c.ids.shape

    def at(values: Array, state: Array) -> Array:  # [B,S,..], [B,W] -> [B,W,..]; of S the last
        return values[jnp.arange(batch)[:, None], jnp.minimum(state, count - 1)]

    def state_of(tokens: Array, index: Array) -> Array:  # [B,W]
        def go_on(number, state):
            place = (written + number)[:, None]  # [B,1]
            column = jnp.minimum(place, tokens.shape[2] - 1)[..., None]
            same = at(c.ids, state) == jnp.take_along_axis(tokens, column, axis=2)
            after = jnp.where(same, at(c.states, state), 0).sum(-1, dtype=jnp.int32)
            after = jnp.where(same.any(-1), after, count)
            return jnp.where((place < index) & (state < count), after, state)

        first = jnp.broadcast_to(c.begins[:, None], tokens.shape[:2])
        return jax.lax.fori_loop(0, jnp.minimum(index, count), go_on, first)

    def apply(log_probs, tokens, index):
        state = state_of(tokens, index)
        ids = at(c.ids, state)  # [B,W,M]
        left = (limits - index - 2 - c.owed)[:, None, None]  # behind the next token, but for EOS
        fits = (ids != NO_TOKEN) & (at(c.needs, state) <= left)
        wanted = sized(unpacked(at(c.ends, state)), log_probs.shape[-1])
        wanted = wanted.at[*beam_indices(ids), ids].max(fits)
        wanted |= (state == count)[..., None]
        return then(jnp.where(wanted, log_probs, -jnp.inf), tokens, index)

    return apply
