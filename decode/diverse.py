"""Diverse beam search (Vijayakumar et al. 2018): groups of beams avoid each other.

The search treats groups as sentences; only the selection of continuations compares groups.
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
    """`beam_searcher` with its W = `beam_size` beams in `num_groups` separate groups of W / G.

    A continuation's token loses `diversity_penalty` for every use of that token among the best
    W / G continuations of each earlier group. The penalty affects the selection only, not scores.
    Each group stops separately and retains its finished hypotheses; but its live beams continue,
    and count in the penalty, until the last group has stopped. A group without continuations no
    longer counts. The W / G best of every group are returned together, best first, without
    duplicates. One group is `beam_searcher`.
    """
    (batch,), group_size = start.shape, beam_size // num_groups

    def merge_groups(tree):  # [B*G,W/G,...] -> [B,W,...]
        return jax.tree.map(lambda x: x.reshape(batch, beam_size, *x.shape[2:]), tree)

    def split_groups(tree):
        return jax.tree.map(lambda x: x.reshape(batch * num_groups, group_size, *x.shape[2:]), tree)

    def grouped_step(tokens, cache, index):
        output, cache = step(merge_groups(tokens), cache, index)
        return split_groups(output), cache

    def grouped_reorder(cache, parents):
        offsets = group_size * jnp.arange(num_groups, dtype=jnp.int32)[None, :, None]
        parents = parents.reshape(batch, num_groups, group_size) + offsets
        return reorder(cache, parents.reshape(batch, beam_size))

    def grouped_transform(log_probs, tokens, index):
        assert transform is not None
        return split_groups(transform(merge_groups(log_probs), merge_groups(tokens), index))

    def select_candidates(scores, log_probs, tokens, index):
        scores = scores.reshape(batch, num_groups, group_size)
        log_probs = log_probs.reshape(batch, num_groups, group_size, -1)
        token_counts = jnp.zeros((batch, 1, log_probs.shape[-1]), jnp.float32)
        group_candidates = []
        for group in range(num_groups):
            candidates = top_continuations(
                scores[:, group],
                log_probs[:, group] - diversity_penalty * token_counts,
                2 * group_size,
                top_k,
            )
            group_candidates.append(candidates)
            rows = jnp.arange(batch)[:, None]
            ranking, _, tokens = (x[:, :group_size] for x in candidates)
            uses = jnp.where(jnp.isneginf(ranking), 0.0, 1.0)
            token_counts = token_counts.at[rows, 0, tokens].add(uses)
        return jax.tree.map(
            lambda *groups: jnp.stack(groups, 1).reshape(batch * num_groups, -1), *group_candidates
        )

    search = beam_searcher(
        grouped_step,
        jnp.repeat(start, num_groups),
        jnp.repeat(limits, num_groups),
        beam_size=group_size,
        reorder=grouped_reorder,
        transform=grouped_transform if transform else None,
        score_bonus=score_bonus and (lambda cache: split_groups(score_bonus(cache))),
        on_token=on_token
        and (lambda tokens, length, on: on_token(tokens[::num_groups], length, on[::num_groups])),
        select_candidates=select_candidates,
        **options,
    )

    def active(state) -> Array:
        return search.active(state).reshape(batch, num_groups).any(1)

    def result(state) -> Hypotheses:
        hypotheses = merge_groups(search.result(state))
        equal = (hypotheses.tokens[:, :, None] == hypotheses.tokens[:, None]).all(-1)
        # Missing hypotheses are all zeros, as EOS alone may be: compare lengths too.
        equal &= hypotheses.lengths[:, :, None] == hypotheses.lengths[:, None]
        duplicates = (equal & jnp.tri(beam_size, k=-1, dtype=bool)[None]).any(-1)
        scores = jnp.where(duplicates, -jnp.inf, hypotheses.scores)
        return top_hypotheses(hypotheses._replace(scores=scores), beam_size)

    return search._replace(active=active, result=result)
