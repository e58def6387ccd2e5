"""Greedy search and sampling."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from decode.length_normalization import LengthNorm
from decode.loop import (
    CacheOps,
    Hypotheses,
    Search,
    StepFn,
    StreamCallback,
    candidate_scores,
    preallocated,
    run,
    token_log_probs,
)
from decode.topk import blockwise_argmax
from decode.transforms import Transform

# (log-probabilities [B,W,V], each row less any constant; index) -> tokens [B,W]
SelectToken = Callable[[Array, Array], Array]


class _State(NamedTuple):
    index: Array  # type: ignore[assignment]  # tokens of active outputs; hides tuple.index
    tokens: Array  # [B,W,L]
    token_scores: Array  # [B,W,L]
    lengths: Array  # [B,W]: of ended outputs
    last: Array  # [B,W]
    ended: Array  # [B,W] bool
    cache: object


def sample(
    step: StepFn,
    cache: object,
    start: Array,
    limits: Array,
    *,
    max_length: int,
    ops: CacheOps | None = None,
    **options,
) -> Hypotheses:
    """Outputs drawn from `step`: `sampler`, run to the end from `cache`."""
    search = sampler(step, start, limits, max_length=max_length, **options)
    return search.result(run(search, cache, ops or preallocated(max_length)))


def sampler(
    step: StepFn,
    start: Array,
    limits: Array,
    *,
    eos: int,
    max_length: int,
    select_token: SelectToken,
    width: int = 1,
    length_norm: LengthNorm,
    transform: Transform | None = None,
    on_token: StreamCallback | None = None,
) -> Search:
    """The search for W = `width` independent outputs of each of B sentences, in their order.

    `select_token` chooses every token from the transformed log-probabilities. Other arguments and
    the result are as in `decode.beam.beam_searcher`, but outputs are in the order of the samples.
    """
    (batch,) = start.shape
    rows = jnp.broadcast_to(jnp.arange(width, dtype=jnp.int32), (batch, width))

    def init(cache: object) -> _State:
        tokens = jnp.zeros((batch, width, max_length), jnp.int32)
        lengths = jnp.zeros((batch, width), jnp.int32)
        last = jnp.broadcast_to(start[:, None], (batch, width))
        scores = tokens.astype(jnp.float32)
        return _State(jnp.int32(0), tokens, scores, lengths, last, lengths > 0, cache)

    def search_step(s: _State) -> _State:
        next_token, cache = step(s.last, s.cache, s.index)
        steered, _ = candidate_scores(next_token, s.tokens, s.index, transform)
        token = jnp.where((s.index + 1 >= limits)[:, None], eos, select_token(steered, s.index))

        def append(values, column):
            column = jnp.where(s.ended, 0, column)
            return jax.lax.dynamic_update_index_in_dim(values, column[..., None], s.index, axis=2)

        tokens = append(s.tokens, token)
        if on_token is not None:
            on_token(tokens[:, 0], s.index + 1, ~s.ended[:, 0])
        return _State(
            index=s.index + 1,
            tokens=tokens,
            token_scores=append(s.token_scores, token_log_probs(next_token, rows, token, eos)),
            lengths=jnp.where(s.ended, s.lengths, s.index + 1),
            last=token,
            ended=s.ended | (token == eos),
            cache=cache,
        )

    def result(s: _State) -> Hypotheses:
        scores = length_norm(s.token_scores.sum(-1), s.lengths)
        return Hypotheses(s.tokens, scores, s.lengths, s.token_scores)

    return Search(init, search_step, lambda s: ~s.ended.all(1), result)


def greedy(log_probs: Array, index: Array) -> Array:
    """Greedy `SelectToken`: the likeliest token, the lowest id of equals."""
    return blockwise_argmax(log_probs)


def sampled(keys: Array) -> SelectToken:
    """Sampling `SelectToken`; `keys` [B] are typed, one per sentence.

    The token at `index` of sample w depends only on the sentence's key, w and index, not on the
    batch or the number of samples.
    """

    def select_token(log_probs: Array, index: Array) -> Array:
        def draw(key, sample, row):
            key = jax.random.fold_in(jax.random.fold_in(key, sample), index)
            return jax.random.categorical(key, row).astype(jnp.int32)

        samples = jnp.arange(log_probs.shape[1], dtype=jnp.int32)
        return jax.vmap(lambda key, rows: jax.vmap(draw, (None, 0, 0))(key, samples, rows))(
            keys, log_probs
        )

    return select_token
