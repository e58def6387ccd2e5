"""Beam search over any step function (paper 6.1; Wu et al. 2016).

Axes: B batch, W beam, C candidates (2 W by default), P finished hypotheses, L buffer length,
V vocabulary.
"""

from collections.abc import Callable
from functools import partial
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
    gather_beams,
    preallocated,
    run,
    token_log_probs,
)
from decode.stopping import Stopping
from decode.transforms import Transform

# (scores so far [B,W], log-probabilities [B,W,V], tokens so far [B,W,L], index) -> candidates, best
# first: their scores (-inf: none), beams and tokens, each [B,C]
SelectCandidates = Callable[[Array, Array, Array, Array], tuple[Array, Array, Array]]


class _State(NamedTuple):
    index: Array  # type: ignore[assignment]  # tokens of live hypotheses; hides tuple.index
    live: Hypotheses  # scores: sums, -inf marks a dead beam; lengths: all `index`
    finished: Hypotheses  # [B,P,...]
    done: Array  # [B] bool
    cache: object


def beam_search(
    step: StepFn,
    cache: object,
    start: Array,
    limits: Array,
    *,
    max_length: int,
    ops: CacheOps | None = None,
    **options,
) -> Hypotheses:
    """Run `beam_searcher` to the end from `cache`: the best outputs under `step`."""
    ops = ops or preallocated(max_length)
    search = beam_searcher(
        step, start, limits, max_length=max_length, reorder=ops.reorder, **options
    )
    return search.result(run(search, cache, ops))


def beam_searcher(
    step: StepFn,
    start: Array,
    limits: Array,
    *,
    eos: int,
    beam_size: int,
    max_length: int,
    length_norm: LengthNorm,
    stopping: Stopping,
    reorder: Callable[[object, Array], object],
    transform: Transform | None = None,
    top_k: Callable[[Array, int], tuple[Array, Array]] = jax.lax.top_k,
    select_candidates: SelectCandidates | None = None,
    score_bonus: Callable[[object], Array] | None = None,
    free_eos_at_limit: bool = False,
    on_token: StreamCallback | None = None,
) -> Search:
    """Make the search for the best outputs under `step`, W = `beam_size` for each of B sentences.

    `start` [B] is the token before the first; `limits` [B] (1 .. `max_length` = L) bounds each
    output's length with EOS: at the limit a hypothesis can only end. In every step, those of the W
    best continuations that end join the finished hypotheses; the best W others stay live. A
    sentence stops by the rule `stopping`, or at its limit. Then it no longer changes, so it does
    not depend on other sentences of the batch. Width 1 is greedy search.

    `transform` changes the log-probabilities that rank continuations; scores are always sums of the
    log-probabilities of `step`, normalized by `length_norm`, plus `score_bonus(cache)` [B,W] (for
    example, a coverage penalty). `reorder` is `CacheOps.reorder` of the cache, `top_k` finds the
    highest scores and their indices in rows [B,W,V], and `select_candidates` selects the
    candidates. With `free_eos_at_limit`, a forced EOS at the limit does not change the score.
    `on_token` receives the live hypothesis with the highest score after every step.
    """
    (batch,), width = start.shape, beam_size
    # 2 W candidates: even if W of them end, W stay live.
    select_candidates = select_candidates or (
        lambda scores, log_probs, *_: top_continuations(scores, log_probs, 2 * width, top_k)
    )

    def init(cache: object) -> _State:
        empty = _empty_hypotheses(batch, width, max_length)
        return _State(
            index=jnp.int32(0),
            # Only beam 0 starts live; otherwise W equal copies would be searched.
            live=empty._replace(scores=empty.scores.at[:, 0].set(0.0)),
            finished=_empty_hypotheses(batch, stopping.capacity(width), max_length),
            done=jnp.zeros(batch, bool),
            cache=cache,
        )

    def search_step(s: _State) -> _State:
        # Run the step on the last token of each live hypothesis.
        previous = jnp.maximum(s.index - 1, 0)
        last = jax.lax.dynamic_index_in_dim(s.live.tokens, previous, 2, keepdims=False)  # [B,W]
        next_token, cache = step(jnp.where(s.index == 0, start[:, None], last), s.cache, s.index)

        # Rank the candidates (ranking, beams and tokens, each [B,C]). At its length limit a
        # hypothesis can only end.
        rank_scores, offset = candidate_scores(next_token, s.live.tokens, s.index, transform)
        base_scores = s.live.scores - offset
        unforced = select_candidates(base_scores, rank_scores, s.live.tokens, s.index)
        eos_log_prob = next_token.eos_logit - next_token.log_normalizer  # [B,W]
        if free_eos_at_limit:
            eos_log_prob = jnp.zeros_like(eos_log_prob)
        forced = _forced_eos(s.live.scores + eos_log_prob, eos, unforced[0].shape[1])
        at_limit = (s.index + 1 >= limits)[:, None]  # [B,1]
        ranking, beams, tokens = jax.tree.map(partial(jnp.where, at_limit), forced, unforced)

        # Append the tokens. Scores sum the step's log-probabilities, before `transform`.
        def append(values, column):  # [B,W,L], [B,C] -> [B,C,L]
            return jax.lax.dynamic_update_index_in_dim(
                gather_beams(values, beams), column[..., None], s.index, axis=2
            )

        token_scores = token_log_probs(next_token, beams, tokens, eos)  # [B,C]
        if free_eos_at_limit:
            token_scores = jnp.where(at_limit, 0.0, token_scores)
        scores = gather_beams(s.live.scores, beams) + token_scores  # [B,C]
        scores = jnp.where(jnp.isneginf(ranking), ranking, scores)
        candidates = Hypotheses(
            append(s.live.tokens, tokens),
            scores,
            jnp.full_like(beams, s.index + 1),
            append(s.live.token_scores, token_scores),
        )

        # Finished: those of the W best candidates that end. A worse one would not be in the beam.
        is_eos = tokens == eos  # [B,C]
        normed = jnp.where(is_eos & ~s.done[:, None], length_norm(scores, s.index + 1), -jnp.inf)
        if score_bonus is not None:
            normed += gather_beams(score_bonus(cache), beams)
        newly_finished = candidates._replace(scores=normed)
        newly_finished = jax.tree.map(lambda leaf: leaf[:, :width], newly_finished)
        finished = jax.tree.map(lambda *pair: jnp.concatenate(pair, 1), s.finished, newly_finished)
        finished = top_hypotheses(finished, s.finished.scores.shape[1])  # [B,P,...]

        # Live: the first W candidates, which are sorted, that neither end nor are dead.
        count = is_eos.shape[1]
        order = jnp.where(is_eos | jnp.isneginf(scores), -count, -jnp.arange(count))
        _, survivors = jax.lax.top_k(order, width)  # [B,W], indices of candidates
        live = jax.tree.map(lambda leaf: gather_beams(leaf, survivors), candidates)
        live_scores = jnp.where(gather_beams(is_eos, survivors), -jnp.inf, live.scores)
        live = live._replace(scores=live_scores)
        if on_token is not None:
            best = live.scores.argmax(1, keepdims=True)
            on_token(gather_beams(live.tokens, best)[:, 0], s.index + 1, ~s.done)

        # A sentence is done by its stopping rule, or if no beam is live, as at its limit.
        stops = stopping.done(
            finished.scores, live.scores.max(1), s.index + 1, limits, length_norm, width
        )
        no_live = jnp.isneginf(live.scores).all(1)
        return _State(
            index=s.index + 1,
            live=live,
            finished=finished,
            done=s.done | stops | no_live,
            cache=reorder(cache, gather_beams(beams, survivors)),
        )

    def result(s: _State) -> Hypotheses:
        return jax.tree.map(lambda leaf: leaf[:, :width], s.finished)

    return Search(init, search_step, lambda s: ~s.done, result)


def _forced_eos(scores: Array, eos: int, count: int) -> tuple[Array, Array, Array]:
    """Candidates [B,`count`] if all W beams must end, with these `scores` [B,W]."""
    scores, beams = jax.lax.top_k(scores, scores.shape[1])
    padding = ((0, 0), (0, count - scores.shape[1]))
    scores = jnp.pad(scores, padding, constant_values=-jnp.inf)
    beams = jnp.pad(beams.astype(jnp.int32), padding)
    return scores, beams, jnp.full_like(beams, eos)


def top_continuations(
    scores: Array, log_probs: Array, count: int, top_k=jax.lax.top_k
) -> tuple[Array, Array, Array]:
    """The `count` best sums of [B,W] and [B,W,V], best first: their sums, beams and tokens.

    Top-k per beam, then over the beams' best: W short sorts are faster than one of length W V.
    """
    batch, width, vocab = log_probs.shape
    gains, tokens = top_k(log_probs, min(count, vocab))
    totals = scores[..., None] + gains
    per_beam = totals.shape[-1]
    totals, best = jax.lax.top_k(totals.reshape(batch, -1), min(count, width * per_beam))
    return (
        totals,
        (best // per_beam).astype(jnp.int32),
        gather_beams(tokens.reshape(batch, -1), best),
    )


def top_hypotheses(hypotheses: Hypotheses, count: int) -> Hypotheses:
    """The `count` hypotheses with the highest scores, best first; ties keep their order."""
    _, best = jax.lax.top_k(hypotheses.scores, count)
    return jax.tree.map(lambda leaf: gather_beams(leaf, best), hypotheses)


def _empty_hypotheses(batch: int, width: int, length: int) -> Hypotheses:
    return Hypotheses(
        jnp.zeros((batch, width, length), jnp.int32),
        jnp.full((batch, width), -jnp.inf, jnp.float32),
        jnp.zeros((batch, width), jnp.int32),
        jnp.zeros((batch, width, length), jnp.float32),
    )
