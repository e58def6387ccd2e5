"""The search loop that all methods share, over any step function.

A search does not depend on model, vocabulary or cache layout. It is a few pure functions of a
state, which the loop applies while the cache grows and sentences end.
Axes: B batch, W outputs of a sentence, L buffer length, V vocabulary.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from decode.transforms import Transform


class NextToken(NamedTuple):
    """Next-token distribution: log-probabilities are logits - log_normalizer.

    Keeping them separate saves a pass over the vocabulary: the best of a row need no normalization.
    """

    logits: Array  # [B,W,V] float32; -inf for tokens that are not allowed (yet)
    log_normalizer: Array  # [B,W]: logsumexp over all tokens in the normalization
    eos_logit: Array  # [B,W]: EOS's logit, even if EOS is not allowed yet


# (tokens [B,W], cache, index) -> (NextToken, cache)
StepFn = Callable[[Array, object, Array], tuple[NextToken, object]]
# (a sentence's tokens [B,L], their number, which sentences are still active [B])
StreamCallback = Callable[[Array, Array, Array], None]


class Hypotheses(NamedTuple):
    """Finished outputs of each sentence, best first; samples in the order of drawing."""

    tokens: Array  # [B,W,L] int32, ending in EOS, zeros after it
    scores: Array  # [B,W] float32: normalized log-probability; -inf: no output
    lengths: Array  # [B,W] int32, EOS included
    token_scores: Array  # [B,W,L] float32: each token's log-probability under the step function


class CacheOps(NamedTuple):
    """Cache operations of a search between steps; the defaults suit leaves that begin [B,W].

    `reorder(cache, parents [B,W])` makes every beam continue from its parent.
    The loop runs in `cache_stages`, up to these lengths (the last is the longest output); before
    each stage `extend(cache, length)` extends the cache to that many tokens.
    """

    reorder: Callable[[object, Array], object]
    extend: Callable[[object, int], object]
    cache_stages: tuple[int, ...]
    single_beam_first_step: bool = False  # whether the cache has one beam for the first step
    # Lets a step write at any position of a fully extended cache, not only in its last block.
    coalesce: Callable[[object], object] = lambda cache: cache


def preallocated(max_length: int) -> CacheOps:
    """`CacheOps` of a preallocated cache for `max_length` tokens, in arrays that begin [B,W]."""
    reorder = lambda cache, rows: jax.tree.map(lambda leaf: gather_beams(leaf, rows), cache)  # noqa: E731
    return CacheOps(reorder, lambda cache, length: cache, (max_length,))


class State(Protocol):
    """State of a search: a NamedTuple with arrays that begin with B or a multiple of it.

    A sentence's rows are adjacent.
    """

    @property
    def index(self) -> Array:
        """Number of steps so far."""

    @property
    def cache(self) -> object: ...

    def _replace(self, *, cache: object) -> Self: ...


S = TypeVar("S", bound=State)
Rows = TypeVar("Rows")


class Search(NamedTuple, Generic[S]):
    """One kind of search over B sentences, as functions of its state."""

    init: Callable[[object], S]  # cache -> state
    step: Callable[[S], S]  # state -> state with one more token
    active: Callable[[S], Array]  # state -> [B] bool: unfinished sentences
    result: Callable[[S], Hypotheses]  # state -> the hypotheses


SyncCount = Callable[[Array], Array]  # number of unfinished sentences, [] -> []


def identity(count: Array) -> Array:
    """The `SyncCount` of a device that steps independently."""
    return count


def run(
    search: Search[S], cache: object, ops: CacheOps, tail_rows: int = 0, sync: SyncCount = identity
) -> S:
    """Run a `search` from `cache` until at most `tail_rows` sentences remain -> its state."""
    state = search.init(cache)
    for end in ops.cache_stages:
        state = state._replace(cache=ops.extend(state.cache, end))
        if ops.single_beam_first_step and end == ops.cache_stages[0]:
            state = search.step(state)  # outside the loop, whose state has a fixed shape
        with jax.named_scope(f"steps_to_{end}"):  # the name in compiled programs
            state = _run_until(search, state, end, tail_rows, sync)
    return state


def run_compacted(
    make_search: Callable[[Rows], Search],
    rows: Rows,
    cache: object,
    ops: CacheOps,
    tail_rows: int,
    sync: SyncCount = identity,
) -> Hypotheses:
    """Search for all `rows`, arrays that begin with B; compact once when `tail_rows` remain.

    `make_search(rows)` builds the search of these or fewer rows. Sentences end at different
    lengths, and a batch is computed until its last sentence is done: moving the unfinished
    sentences into a smaller batch once, late, saves most of that work. If devices must run in
    lockstep, `sync` returns the maximum over devices of the number of unfinished sentences.
    """
    search = make_search(rows)
    state = run(search, cache, ops, tail_rows, sync)
    result, active = search.result(state), search.active(state)
    if not tail_rows:
        return result
    order = jnp.argsort(~active)[:tail_rows]  # stable: unfinished first, in batch order
    search = make_search(_select_rows(rows, order, len(active)))
    state = _select_rows(state, order, len(active))
    state = state._replace(cache=ops.coalesce(state.cache))
    with jax.named_scope(f"last_{tail_rows}_sentences"):
        state = _run_until(search, state, ops.cache_stages[-1], 0, sync)
    return jax.tree.map(lambda rows, tail: rows.at[order].set(tail), result, search.result(state))


def _run_until(search: Search[S], state: S, end: int, tail_rows: int, sync: SyncCount) -> S:
    def unfinished(state: S) -> Array:
        return (state.index < end) & (sync(search.active(state).sum(dtype=jnp.int32)) > tail_rows)

    return jax.lax.while_loop(unfinished, search.step, state)


def _select_rows(tree, order: Array, batch: int):
    """Select the rows of the sentences in `order` from every array; scalars are shared."""

    def select(leaf: Array) -> Array:
        if not leaf.ndim:
            return leaf
        rows = leaf.shape[0] // batch
        selected = leaf.reshape(batch, rows, *leaf.shape[1:])[order]
        return selected.reshape(len(order) * rows, *leaf.shape[1:])

    return jax.tree.map(select, tree)


def candidate_scores(
    next_token: NextToken, tokens: Array, index: Array, transform: Transform | None
) -> tuple[Array, Array]:
    """Scores [B,W,V] that rank a step's continuations, and the offset [B,W] to subtract."""
    if transform is None:
        return next_token.logits, next_token.log_normalizer
    steered = transform(next_token.logits - next_token.log_normalizer[..., None], tokens, index)
    return steered, jnp.zeros_like(next_token.log_normalizer)


def token_log_probs(next_token: NextToken, beams: Array, tokens: Array, eos: int) -> Array:
    """Log-probabilities of `tokens` [B,C] after `beams` [B,C], of EOS even if not allowed yet."""
    batch, width, vocab = next_token.logits.shape
    # Index the product's two-dimensional result: with three axes XLA would copy it.
    rows = jnp.arange(batch, dtype=jnp.int32)[:, None] * width + beams
    logits = next_token.logits.reshape(batch * width, vocab)[rows, tokens]
    return jnp.where(
        tokens == eos, gather_beams(next_token.eos_logit, beams), logits
    ) - gather_beams(next_token.log_normalizer, beams)


def gather_beams(x: Array, rows: Array) -> Array:
    """Gather beams: x [B,W,...], rows [B,R] -> [B,R,...]."""
    rows = rows.reshape(*rows.shape, *(1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, rows, axis=1)
