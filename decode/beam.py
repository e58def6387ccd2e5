"""Beam search over any step function (paper 6.1; Wu et al. 2016).

It knows no model, no vocabulary and no cache layout: only that cache leaves begin with [B, W].
Axes: B batch, W beam, P pool, L buffer length, V vocabulary.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from decode.scoring import Normalise
from decode.stopping import Stopping
from decode.transforms import Transform, chain, ending

# (tokens [B,W], cache, index) -> (float32 log-probabilities [B,W,V], cache)
StepFn = Callable[[Array, object, Array], tuple[Array, object]]
# (scores so far [B,W], log-probabilities [B,W,V], cache) -> candidates, best first: their scores,
# beams and tokens, each [B,C]
Choose = Callable[[Array, Array, object], tuple[Array, Array, Array]]


class Hypotheses(NamedTuple):
    """Finished outputs of each sentence, best first."""

    tokens: Array  # [B,W,L] int32, ending in EOS, zeros after it
    scores: Array  # [B,W] float32: normalised log-probability; -inf where there is none
    lengths: Array  # [B,W] int32, EOS included
    token_scores: Array  # [B,W,L] float32: each token's log-probability under the step function


class _State(NamedTuple):
    index: Array  # how many tokens live hypotheses have
    live: Hypotheses  # scores: sums, -inf marks a dead beam; lengths: all `index`
    pool: Hypotheses  # [B,P,...]
    stopped: Array  # [B] bool
    cache: object


def beam_search(
    step: StepFn,
    cache: object,
    start: Array,
    limits: Array,
    *,
    eos: int,
    beam_size: int,
    max_length: int,
    normalise: Normalise,
    stopping: Stopping,
    transform: Transform | None = None,
    choose: Choose | None = None,
    bonus: Callable[[object], Array] | None = None,
) -> Hypotheses:
    """The best outputs under `step`, W = `beam_size` for each of B sentences.

    `start` [B] is the token before the first; `limits` [B] (1 .. `max_length` = L) bounds each
    output's length with EOS: a hypothesis that reaches it can only end. In every step the W best
    continuations compete: those that end go to the finished pool, the best W others live on. A
    sentence stops by the rule `stopping`, or at its limit; from then on nothing of it changes, so
    that it does not depend on its batch mates. Width 1 is greedy search.

    `transform` changes the log-probabilities that continuations compete with; scores returned are
    always those of `step` itself, `normalise`d by length, plus `bonus(cache)` [B,W] (a coverage
    penalty, say). `choose` replaces how the candidates are picked.
    """
    (batch,), width = start.shape, beam_size
    transform = ending(limits, eos, transform or chain())
    # Twice W: even if W of the candidates end, W are left to live on.
    choose = choose or (lambda *args: best_continuations(*args[:2], 2 * width))
    none = _nothing(batch, width, max_length)
    state = _State(
        index=jnp.int32(0),
        live=none._replace(scores=none.scores.at[:, 0].set(0.0)),  # all start alike: one is enough
        pool=_nothing(batch, stopping.pool(width), max_length),
        stopped=jnp.zeros(batch, bool),
        cache=cache,
    )

    def running(s: _State) -> Array:
        return (s.index < max_length) & ~s.stopped.all()

    def grow(s: _State) -> _State:
        last = jax.lax.dynamic_index_in_dim(
            s.live.tokens, jnp.maximum(s.index - 1, 0), 2, keepdims=False
        )
        plain, cache = step(jnp.where(s.index == 0, start[:, None], last), s.cache, s.index)
        log_probs = transform(plain, s.live.tokens, s.index)
        scores, beams, tokens = choose(s.live.scores, log_probs, cache)

        def append(part, new):
            return jax.lax.dynamic_update_index_in_dim(
                take(part, beams), new[..., None], s.index, axis=2
            )

        gained = jnp.take_along_axis(take(plain, beams), tokens[..., None], axis=2)[..., 0]
        grown = Hypotheses(
            append(s.live.tokens, tokens),
            scores,
            jnp.full_like(beams, s.index + 1),
            append(s.live.token_scores, gained),
        )

        # Only the W best continuations may end: one that is worse would not have been kept.
        ends = tokens == eos
        ending = jnp.where(ends & ~s.stopped[:, None], normalise(scores, s.index + 1), -jnp.inf)
        if bonus is not None:
            ending += take(bonus(cache), beams)
        ending = jax.tree.map(lambda leaf: leaf[:, :width], grown._replace(scores=ending))
        pool = best_of(jax.tree.map(lambda *both: jnp.concatenate(both, 1), s.pool, ending),
                       s.pool.scores.shape[1])  # fmt: skip

        # Candidates come best first, so the first W that neither end nor are dead live on.
        order = jnp.where(ends | jnp.isneginf(scores), -ends.shape[1], -jnp.arange(ends.shape[1]))
        _, kept = jax.lax.top_k(order, width)
        live = jax.tree.map(lambda leaf: take(leaf, kept), grown)
        live = live._replace(scores=jnp.where(take(ends, kept), -jnp.inf, live.scores))
        parents = take(beams, kept)
        dead = jnp.isneginf(live.scores).all(1)
        over = stopping.over(pool.scores, live.scores.max(1), s.index + 1, limits, normalise, width)
        return _State(
            index=s.index + 1,
            live=live,
            pool=pool,
            stopped=s.stopped | over | dead,
            cache=jax.tree.map(lambda leaf: take(leaf, parents), cache),
        )

    pool = jax.lax.while_loop(running, grow, state).pool
    return jax.tree.map(lambda leaf: leaf[:, :width], pool)


def best_continuations(scores: Array, log_probs: Array, count: int) -> tuple[Array, Array, Array]:
    """The `count` best sums of [B,W] and [B,W,V], best first: their sums, beams and tokens.

    Per beam first, then among the beams' best: sorting W short lists beats one of length W V.
    """
    batch, width, vocab = log_probs.shape
    totals, tokens = jax.lax.top_k(scores[..., None] + log_probs, min(count, vocab))
    each = totals.shape[-1]
    totals, best = jax.lax.top_k(totals.reshape(batch, -1), min(count, width * each))
    return totals, (best // each).astype(jnp.int32), take(tokens.reshape(batch, -1), best)


def best_of(found: Hypotheses, count: int) -> Hypotheses:
    """The `count` hypotheses of the highest scores, best first; the earlier among equals."""
    _, best = jax.lax.top_k(found.scores, count)
    return jax.tree.map(lambda leaf: take(leaf, best), found)


def take(x: Array, rows: Array) -> Array:
    """x [B,W,...], rows [B,R] -> [B,R,...]: each sentence's own choice of its beams."""
    rows = rows.reshape(*rows.shape, *(1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, rows, axis=1)


def _nothing(batch: int, width: int, length: int) -> Hypotheses:
    return Hypotheses(
        jnp.zeros((batch, width, length), jnp.int32),
        jnp.full((batch, width), -jnp.inf, jnp.float32),
        jnp.zeros((batch, width), jnp.int32),
        jnp.zeros((batch, width, length), jnp.float32),
    )
