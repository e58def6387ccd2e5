"""The search loop that all methods share, over any step function.

A search knows no model, no vocabulary and no cache layout. It is a few pure functions of a state,
and the loop applies them while the cache grows and sentences end.
Axes: B batch, W outputs of a sentence, L buffer length, V vocabulary.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from decode.transforms import Transform


class NextToken(NamedTuple):
    """What the next token may be: log-probabilities are logits - log_normalizer.

    Apart they save a pass over the vocabulary: what is best in a row needs no normalising.
    """

    logits: Array  # [B,W,V] float32; -inf for what cannot be chosen, or for EOS not yet
    log_normalizer: Array  # [B,W]: the log of the sum of exp over all that counts, chosen or not
    eos_logit: Array  # [B,W]: EOS's logit, even where it is too early to choose it


# (tokens [B,W], cache, index) -> (NextToken, cache)
StepFn = Callable[[Array, object, Array], tuple[NextToken, object]]
# (a sentence's tokens [B,L], how many of them there are, which sentences still go on [B])
StreamCallback = Callable[[Array, Array, Array], None]


class Hypotheses(NamedTuple):
    """Finished outputs of each sentence, best first; samples as they were drawn."""

    tokens: Array  # [B,W,L] int32, ending in EOS, zeros after it
    scores: Array  # [B,W] float32: normalised log-probability; -inf where there is none
    lengths: Array  # [B,W] int32, EOS included
    token_scores: Array  # [B,W,L] float32: each token's log-probability under the step function


class CacheOps(NamedTuple):
    """What a search does to a cache between steps; what is here suits leaves that begin [B,W].

    `reorder(cache, parents [B,W])` has every beam go on from where its parent was.
    The loop runs in `cache_stages`, up to these lengths (the last is the longest output) and before
    each of them `extend(cache, length)` makes room for that many tokens.
    """

    reorder: Callable[[object, Array], object]
    extend: Callable[[object, int], object]
    cache_stages: tuple[int, ...]
    single_beam_first_step: bool = (
        False  # whether the cache holds one beam until the first step is over
    )
    # What lets a step write anywhere in a cache with all its room, not only in what came last.
    coalesce: Callable[[object], object] = lambda cache: cache


def preallocated(max_length: int) -> CacheOps:
    """Of a cache with room for `max_length` tokens from the start, in arrays that begin [B,W]."""
    reorder = lambda cache, rows: jax.tree.map(lambda leaf: gather_beams(leaf, rows), cache)  # noqa: E731
    return CacheOps(reorder, lambda cache, length: cache, (max_length,))


class State(Protocol):
    """A NamedTuple of these and of arrays that begin with B or a multiple of it.

    A sentence's rows lie together.
    """

    @property
    def index(self) -> Array:
        """How many steps there were."""

    @property
    def cache(self) -> object: ...

    def _replace(self, *, cache: object) -> Self: ...


S = TypeVar("S", bound=State)
Rows = TypeVar("Rows")


class Search(NamedTuple, Generic[S]):
    """One kind of search over B sentences, as functions of its state."""

    init: Callable[[object], S]  # cache -> state
    step: Callable[[S], S]  # state -> state, a token further
    active: Callable[[S], Array]  # state -> [B] bool: which sentences are not done
    result: Callable[[S], Hypotheses]  # state -> the hypotheses


SyncCount = Callable[[Array], Array]  # sentences not done, [] -> []


def identity(count: Array) -> Array:
    """The `SyncCount` of a device that steps by itself."""
    return count


def run(
    search: Search[S], cache: object, ops: CacheOps, tail_rows: int = 0, sync: SyncCount = identity
) -> S:
    """Run a `search` from `cache` until at most `tail_rows` sentences are not done; its state."""
    state = search.init(cache)
    for end in ops.cache_stages:
        state = state._replace(cache=ops.extend(state.cache, end))
        if ops.single_beam_first_step and end == ops.cache_stages[0]:
            state = search.step(state)  # not in the loop, whose state keeps its shape
        state = _until(search, state, end, tail_rows, sync)
    return state


def run_compacted(
    make: Callable[[Rows], Search],
    rows: Rows,
    cache: object,
    ops: CacheOps,
    tail_rows: int,
    sync: SyncCount = identity,
) -> Hypotheses:
    """Search for all `rows`, arrays that begin with B; compact once `tail_rows` are not done.

    `make(rows)` is the search of these or of fewer. Sentences end at different lengths, and all of
    a batch are computed until its last one is done: moving the unfinished rest into a smaller batch
    once, late, saves most of that. Where devices must step together, `sync` makes of each one's
    number of unfinished sentences the largest of all.
    """
    search = make(rows)
    state = run(search, cache, ops, tail_rows, sync)
    result, active = search.result(state), search.active(state)
    if not tail_rows:
        return result
    order = jnp.argsort(~active)[:tail_rows]  # stable: the unfinished first, in the batch's order
    search = make(_choose(rows, order, len(active)))
    state = _choose(state, order, len(active))
    state = state._replace(cache=ops.coalesce(state.cache))
    state = _until(search, state, ops.cache_stages[-1], 0, sync)
    return jax.tree.map(lambda rows, tail: rows.at[order].set(tail), result, search.result(state))


def _until(search: Search[S], state: S, end: int, tail_rows: int, sync: SyncCount) -> S:
    def on(state: S) -> Array:
        return (state.index < end) & (sync(search.active(state).sum(dtype=jnp.int32)) > tail_rows)

    return jax.lax.while_loop(on, search.step, state)


def _choose(tree, order: Array, batch: int):
    """Of every array the rows of the sentences in `order`; scalars belong to all."""

    def some(leaf: Array) -> Array:
        if not leaf.ndim:
            return leaf
        each = leaf.shape[0] // batch
        chosen = leaf.reshape(batch, each, *leaf.shape[1:])[order]
        return chosen.reshape(len(order) * each, *leaf.shape[1:])

    return jax.tree.map(some, tree)


def candidate_scores(
    next_token: NextToken, tokens: Array, index: Array, transform: Transform | None
) -> tuple[Array, Array]:
    """The scores [B,W,V] to choose a step's continuations by, and what to take off them [B,W]."""
    if transform is None:
        return next_token.logits, next_token.log_normalizer
    steered = transform(next_token.logits - next_token.log_normalizer[..., None], tokens, index)
    return steered, jnp.zeros_like(next_token.log_normalizer)


def token_log_probs(next_token: NextToken, beams: Array, tokens: Array, eos: int) -> Array:
    """The log-probabilities of `tokens` [B,C] after `beams` [B,C], of EOS even where too early."""
    batch, width, vocab = next_token.logits.shape
    # From rows as the product made them: reading an array in three axes makes XLA copy it.
    rows = jnp.arange(batch, dtype=jnp.int32)[:, None] * width + beams
    logits = next_token.logits.reshape(batch * width, vocab)[rows, tokens]
    return jnp.where(
        tokens == eos, gather_beams(next_token.eos_logit, beams), logits
    ) - gather_beams(next_token.log_normalizer, beams)


def gather_beams(x: Array, rows: Array) -> Array:
    """x [B,W,...], rows [B,R] -> [B,R,...]: each sentence's own choice of its beams."""
    rows = rows.reshape(*rows.shape, *(1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, rows, axis=1)
