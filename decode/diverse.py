"""Diverse beam search (Vijayakumar et al. 2018): groups of beams avoid each other.

Groups are sentences to the search itself: only the choice of continuations looks across them.
Axes: B batch, G groups, W all beams of a sentence, W / G those of a group, V vocabulary.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from decode.beam import beam_searcher, top_continuations, top_hypotheses
from decode.loop import CacheOps, Hypotheses, Search, StepFn, StreamCallback, preallocated, run
from decode.transforms import Transform


def diverse_beam_search(
    step: StepFn,
    cache: object,
    start: Array,
    limits: Array,
    *,
    max_length: int,
    ops: CacheOps | None = None,
    **options,
) -> Hypotheses:
    """The best outputs of several groups: `diverse_beam_searcher`, run to the end from `cache`."""
    ops = ops or preallocated(max_length)
    options |= dict(max_length=max_length, reorder=ops.reorder)
    search = diverse_beam_searcher(step, start, limits, **options)
    return search.result(run(search, cache, ops))


def diverse_beam_searcher(
    step: StepFn,
    start: Array,
    limits: Array,
    *,
    num_groups: int,
    diversity_penalty: float,
    beam_size: int,
    reorder: Callable[[object, Array], object],
    transform: Transform | None = None,
    top_k=jax.lax.top_k,
    score_bonus=None,
    on_token: StreamCallback | None = None,
    **options,
) -> Search:
    """`beam_searcher` with its W = `beam_size` beams in `num_groups` of W / G, each searched apart.

    A group's continuation by a token loses `diversity_penalty` for every use of that token among
    the best W / G continuations of each earlier group. This moves the choice only: scores are
    without it. Each group stops by itself, and its finished ones with it; but its live beams grow
    on, and count, until the last group has stopped. A group that no continuation is left for counts
    no more. The W / G best of every group are returned together, best first; what several groups
    found is there once. One group is `beam_searcher`.
    """
    (batch,), each = start.shape, beam_size // num_groups

    def together(tree):  # [B*G,W/G,...] -> [B,W,...]
        return jax.tree.map(lambda x: x.reshape(batch, beam_size, *x.shape[2:]), tree)

    def apart(tree):
        return jax.tree.map(lambda x: x.reshape(batch * num_groups, each, *x.shape[2:]), tree)

    def grouped_step(tokens, cache, index):
        found, cache = step(together(tokens), cache, index)
        return apart(found), cache

    def grouped_reorder(cache, parents):
        first = each * jnp.arange(num_groups, dtype=jnp.int32)[None, :, None]
        parents = parents.reshape(batch, num_groups, each) + first
        return reorder(cache, parents.reshape(batch, beam_size))

    def grouped_transform(log_probs, tokens, index):
        assert transform is not None
        return apart(transform(together(log_probs), together(tokens), index))

    def select_candidates(scores, log_probs, tokens, index):
        scores = scores.reshape(batch, num_groups, each)
        log_probs = log_probs.reshape(batch, num_groups, each, -1)
        taken = jnp.zeros((batch, 1, log_probs.shape[-1]), jnp.float32)
        chosen = []
        for group in range(num_groups):
            found = top_continuations(
                scores[:, group], log_probs[:, group] - diversity_penalty * taken, 2 * each, top_k
            )
            chosen.append(found)
            rows = jnp.arange(batch)[:, None]
            worth, _, tokens = (part[:, :each] for part in found)
            taken = taken.at[rows, 0, tokens].add(jnp.where(jnp.isneginf(worth), 0.0, 1.0))
        return jax.tree.map(
            lambda *parts: jnp.stack(parts, 1).reshape(batch * num_groups, -1), *chosen
        )

    search = beam_searcher(
        grouped_step,
        jnp.repeat(start, num_groups),
        jnp.repeat(limits, num_groups),
        beam_size=each,
        reorder=grouped_reorder,
        transform=grouped_transform if transform else None,
        score_bonus=score_bonus and (lambda cache: apart(score_bonus(cache))),
        on_token=on_token
        and (lambda tokens, length, on: on_token(tokens[::num_groups], length, on[::num_groups])),
        select_candidates=select_candidates,
        **options,
    )

    def active(state) -> Array:
        return search.active(state).reshape(batch, num_groups).any(1)

    def result(state) -> Hypotheses:
        found = together(search.result(state))
        same = (found.tokens[:, :, None] == found.tokens[:, None]).all(-1)
        # What is not there is all zeros, and so may EOS alone be.
        same &= found.lengths[:, :, None] == found.lengths[:, None]
        again = (same & jnp.tri(beam_size, k=-1, dtype=bool)[None]).any(-1)
        return top_hypotheses(
            found._replace(scores=jnp.where(again, -jnp.inf, found.scores)), beam_size
        )

    return search._replace(active=active, result=result)
