"""One output a sentence, token by token: greedy search."""

import jax
import jax.numpy as jnp
from jax import Array

from decode.beam import Hypotheses, StepFn, length_penalty, only_eos_at_limit


def greedy(
    step: StepFn,
    cache: object,
    start: Array,
    limits: Array,
    *,
    eos: int,
    alpha: float = 0.0,
    max_length: int,
) -> Hypotheses:
    """The likeliest token at every position, for each of B sentences; W = 1.

    Arguments and result as in `beam_search`, whose width 1 gives the same.
    """
    batch = start.shape[0]

    def running(state):
        index, *_, ended = state
        return (index < max_length) & ~ended.all()

    def grow(state):
        index, cache, token, tokens, score, length, ended = state
        log_probs, cache = step(token[:, None], cache, index)
        log_probs = only_eos_at_limit(log_probs, index, limits, eos)[:, 0]
        token = jnp.argmax(log_probs, axis=-1).astype(jnp.int32)
        gain = jnp.take_along_axis(log_probs, token[:, None], axis=-1)[:, 0]
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, jnp.where(ended, 0, token), index, 1)
        score = jnp.where(ended, score, score + gain)
        length = jnp.where(ended, length, index + 1)
        return index + 1, cache, token, tokens, score, length, ended | (token == eos)

    zeros = jnp.zeros(batch, jnp.int32)
    tokens = jnp.zeros((batch, max_length), jnp.int32)
    state = (jnp.int32(0), cache, start, tokens, zeros.astype(jnp.float32), zeros, zeros > 0)
    _, _, _, tokens, score, length, _ = jax.lax.while_loop(running, grow, state)
    return Hypotheses(
        tokens[:, None], (score / length_penalty(length, alpha))[:, None], length[:, None]
    )
