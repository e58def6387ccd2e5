"""Beam search over any step function (paper 6.1; Wu et al. 2016 for the length penalty).

It knows no model, no vocabulary and no cache layout: only that cache leaves begin with [B, W].
Axes: B batch, W beam, L buffer length, V vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

# (tokens [B,W], cache, index) -> (float32 log-probabilities [B,W,V], cache)
StepFn = Callable[[Array, object, Array], tuple[Array, object]]


class Hypotheses(NamedTuple):
    """The W best finished outputs of each sentence, best first."""

    tokens: Array  # [B,W,L] int32, ending in EOS, zeros after it
    scores: Array  # [B,W] float32: log-probability over length penalty; -inf where there is none
    lengths: Array  # [B,W] int32, EOS included


class _State(NamedTuple):
    index: Array  # how many tokens live hypotheses have
    live: Array  # [B,W,L]
    live_scores: Array  # [B,W] log-probabilities; -inf marks a dead beam
    done: Hypotheses
    stopped: Array  # [B] bool
    cache: object


def length_penalty(length: Array | int, alpha: float) -> Array:
    """((5 + n) / 6) ** alpha, n the number of tokens with EOS (Wu et al. 2016, equation 14)."""
    return ((5.0 + jnp.asarray(length, jnp.float32)) / 6.0) ** alpha


def beam_search(
    step: StepFn,
    cache: object,
    start: Array,
    limits: Array,
    *,
    eos: int,
    beam_size: int,
    alpha: float,
    max_length: int,
) -> Hypotheses:
    """The best outputs under `step`, W = `beam_size` for each of B sentences.

    `start` [B] is the token before the first; `limits` [B] (1 .. `max_length` = L) bounds each
    output's length with EOS: a hypothesis that reaches it can only end. In every step the W best
    continuations compete: those that end go to the finished pool, the best W others live on. A
    sentence stops when its pool holds W hypotheses, or at its limit; from then on nothing of it
    changes, so that it does not depend on its batch mates. Width 1 is greedy search.
    """
    (batch,), width = start.shape, beam_size
    empty = jnp.zeros((batch, width, max_length), jnp.int32)
    none = jnp.full((batch, width), -jnp.inf, jnp.float32)
    state = _State(
        index=jnp.int32(0),
        live=empty,
        live_scores=none.at[:, 0].set(0.0),  # all beams start alike: one of them is enough
        done=Hypotheses(empty, none, jnp.zeros((batch, width), jnp.int32)),
        stopped=jnp.zeros(batch, bool),
        cache=cache,
    )

    def running(s: _State) -> Array:
        return (s.index < max_length) & ~s.stopped.all()

    def grow(s: _State) -> _State:
        previous = jax.lax.dynamic_index_in_dim(
            s.live, jnp.maximum(s.index - 1, 0), 2, keepdims=False
        )
        previous = jnp.where(s.index == 0, start[:, None], previous)
        log_probs, cache = step(previous, s.cache, s.index)
        log_probs = only_eos_at_limit(log_probs, s.index, limits, eos)

        # Twice W: even if W of the candidates end, W are left to live on.
        scores, beams, tokens = best_continuations(s.live_scores[..., None] + log_probs, 2 * width)
        outputs = _take(s.live, beams)
        outputs = jax.lax.dynamic_update_index_in_dim(outputs, tokens[..., None], s.index, axis=2)
        ends = tokens == eos

        # Only the W best continuations may end: one that is worse would not have been kept.
        ending = jnp.where(ends & ~s.stopped[:, None], scores, -jnp.inf)[:, :width]
        normed = ending / length_penalty(s.index + 1, alpha)
        lengths = jnp.full_like(s.done.lengths, s.index + 1)
        pool = Hypotheses(outputs[:, :width], normed, lengths)
        pool = jax.tree.map(lambda *parts: jnp.concatenate(parts, 1), s.done, pool)
        _, best = jax.lax.top_k(pool.scores, width)
        done = jax.tree.map(lambda leaf: _take(leaf, best), pool)

        live_scores, kept = jax.lax.top_k(jnp.where(ends, -jnp.inf, scores), width)
        parents = _take(beams, kept)
        full = jnp.isfinite(done.scores).all(1)
        dead = jnp.isneginf(live_scores).all(1)
        return _State(
            index=s.index + 1,
            live=_take(outputs, kept),
            live_scores=live_scores,
            done=done,
            stopped=s.stopped | full | dead,
            cache=jax.tree.map(lambda leaf: _take(leaf, parents), cache),
        )

    done = jax.lax.while_loop(running, grow, state).done
    written = jnp.arange(max_length, dtype=jnp.int32)[None, None] < done.lengths[..., None]
    return done._replace(tokens=jnp.where(written, done.tokens, 0))


def only_eos_at_limit(log_probs: Array, index: Array, limits: Array, eos: int) -> Array:
    """At a sentence's last position all but EOS are impossible: [B,W,V] -> [B,W,V]."""
    last = (index + 1 >= limits)[:, None, None]
    other = jnp.arange(log_probs.shape[-1], dtype=jnp.int32)[None, None] != eos
    return jnp.where(last & other, -jnp.inf, log_probs)


def best_continuations(totals: Array, count: int) -> tuple[Array, Array, Array]:
    """The `count` best of [B,W,V], best first: scores, their beams and their tokens [B,count].

    Per beam first, then among the beams' best: sorting W short lists beats one of length W V.
    """
    batch, width, vocab = totals.shape
    scores, tokens = jax.lax.top_k(totals, min(count, vocab))
    each = scores.shape[-1]
    scores, best = jax.lax.top_k(scores.reshape(batch, -1), min(count, width * each))
    return scores, best // each, _take(tokens.reshape(batch, -1), best)


def _take(x: Array, rows: Array) -> Array:
    """x [B,W,...], rows [B,R] -> [B,R,...]: each sentence's own choice of its beams."""
    rows = rows.reshape(*rows.shape, *(1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, rows, axis=1)
