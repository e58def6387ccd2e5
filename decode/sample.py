"""One output a sentence and stream, token by token: greedy search and sampling."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from decode.beam import CacheOps, Hypotheses, StepFn, Watch, choices, gains, whole
from decode.choose import argmax
from decode.scoring import Normalise
from decode.transforms import Transform

# (log-probabilities [B,W,V], each row less any constant; index) -> tokens [B,W]
Pick = Callable[[Array, Array], Array]


def sample(
    step: StepFn,
    cache: object,
    start: Array,
    limits: Array,
    *,
    eos: int,
    max_length: int,
    pick: Pick,
    width: int = 1,
    normalise: Normalise,
    transform: Transform | None = None,
    ops: CacheOps | None = None,
    watch: Watch | None = None,
) -> Hypotheses:
    """W = `width` independent outputs for each of B sentences, in the order they are numbered.

    `pick` chooses every token from the transformed log-probabilities. Other arguments and the
    result as in `beam_search`.
    """
    (batch,) = start.shape

    ops = ops or whole(max_length)
    own = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), (batch, width))

    def running(end, state):
        index, *_, ended = state
        return (index < end) & ~ended.all()

    def grow(state):
        index, cache, last, tokens, token_scores, lengths, ended = state
        found, cache = step(last, cache, index)
        steered, _ = choices(found, tokens, index, transform)
        token = jnp.where((index + 1 >= limits)[:, None], eos, pick(steered, index))
        gained = gains(found, own, token, eos)

        def append(part, new):
            new = jnp.where(ended, 0, new)
            return jax.lax.dynamic_update_index_in_dim(part, new[..., None], index, axis=2)

        grown = append(tokens, token)
        if watch is not None:
            watch(grown[:, 0], index + 1, ~ended[:, 0])
        return (
            index + 1,
            cache,
            token,
            grown,
            append(token_scores, gained),
            jnp.where(ended, lengths, index + 1),
            ended | (token == eos),
        )

    tokens = jnp.zeros((batch, width, max_length), jnp.int32)
    lengths = jnp.zeros((batch, width), jnp.int32)
    last = jnp.broadcast_to(start[:, None], (batch, width))
    scores = tokens.astype(jnp.float32)
    state = (jnp.int32(0), cache, last, tokens, scores, lengths, lengths > 0)
    for end in ops.stages:
        state = (state[0], ops.extend(state[1], end), *state[2:])
        state = jax.lax.while_loop(partial(running, end), grow, state)
    _, _, _, tokens, token_scores, lengths, _ = state
    return Hypotheses(tokens, normalise(token_scores.sum(-1), lengths), lengths, token_scores)


def likeliest(log_probs: Array, index: Array) -> Array:
    """Greedy search's `Pick`: the likeliest token, the lowest id among equals."""
    return argmax(log_probs)


def drawn(keys: Array) -> Pick:
    """Draws each token from its distribution; `keys` [B] are typed, one a sentence.

    Sample w of a sentence draws its token at `index` by its sentence's key, w and index alone:
    whatever the batch, and however many samples there are, it is the same.
    """

    def pick(log_probs: Array, index: Array) -> Array:
        def one(key, number, row):
            key = jax.random.fold_in(jax.random.fold_in(key, number), index)
            return jax.random.categorical(key, row).astype(jnp.int32)

        numbers = jnp.arange(log_probs.shape[1], dtype=jnp.int32)
        return jax.vmap(lambda key, rows: jax.vmap(one, (None, 0, 0))(key, numbers, rows))(
            keys, log_probs
        )

    return pick
