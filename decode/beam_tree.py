"""A beam search recorded as a tree of continuations.

Runs the actual search one step at a time, outside of its loop: slow, for inspection only.
"""

from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from data.batch import BOS, PAD
from data.vocabulary import Vocabulary
from decode.inputs import LongInputPolicy, segment_inputs
from decode.loop import CacheOps, Search, preallocated
from decode.options import InputError, SearchOptions
from decode.search import build_search, reference_step
from decode.search_batch import make_search_batch, padded_sizes
from decode.token_constraints import TokenConstraints
from model import Transformer, init_cache


class Node(NamedTuple):
    """One token of a tree; the first node is the root, BOS, and has itself as parent."""

    parent: int  # index of the parent node
    token: int
    step: int  # number of tokens from the root, this one included
    total: float  # their summed log-probability
    score: float | None  # the search's score if an output ends here
    best: bool  # whether it is part of the best output


def beam_tree(
    model: Transformer,
    params,
    vocabulary: Vocabulary,
    sentence: str,
    options: SearchOptions | None = None,
) -> list[Node]:
    """The nodes of the search for one sentence's translation, parents before children.

    `options` are those of a beam search, with or without groups. Raises InputError for inputs that
    would be split, and for a coverage penalty, which the reference step does not support.
    """
    options = options or SearchOptions()
    if options.method != "beam" or options.coverage:
        raise InputError("a beam tree needs --method=beam without --coverage")
    config = model.config
    policy = LongInputPolicy("error:256", config.max_positions and config.max_positions - 1)
    if not sentence.strip():
        raise InputError("a beam tree needs a sentence that is not empty")
    vocab = config.target_vocab
    segments = partial(segment_inputs, vocabulary=vocabulary, policy=policy, options=options)
    (segment,) = segments([sentence], [""], [()], longest=config.max_positions)
    sizes = padded_sizes([segment])
    request = make_search_batch([segment], 1, len(segment.ids) + 1, sizes, vocab)
    request = jax.tree.map(jnp.asarray, request)
    variables = {"params": params}
    memory = model.apply(variables, request.src, method="encode")
    cross = model.apply(variables, memory, method="cross_kv")
    mask = request.src != PAD
    ops = preallocated(segment.limit)
    search = build_search(
        options,
        request,
        reference_step(model, params, cross, mask, TokenConstraints.from_options(options)),
        max_length=segment.limit,
        reorder=ops.reorder,
    )
    return nodes(search, init_cache(config, (1, options.beam_size), segment.limit), ops)


def nodes(search: Search, cache: object, ops: CacheOps) -> list[Node]:
    """The tree of a `search` for one sentence, run to its end from `cache`."""
    totals: dict[tuple[int, ...], float] = {(): 0.0}
    final_scores: dict[tuple[int, ...], float] = {}
    state = None
    for state in _states(search, cache, ops):
        live = state.live
        for tokens, total in zip(_rows(live.tokens), live.scores.ravel(), strict=True):
            if np.isfinite(total):
                totals[tuple(tokens[: state.index].tolist())] = float(total)
        for tokens, score, length, token_scores in zip(
            _rows(state.finished.tokens),
            state.finished.scores.ravel(),
            state.finished.lengths.ravel(),
            _rows(state.finished.token_scores),
            strict=True,
        ):
            if np.isfinite(score):
                output = tuple(tokens[:length].tolist())
                final_scores[output] = float(score)
                totals[output] = float(token_scores[:length].sum())
    result = jax.device_get(search.result(state))
    best = tuple(result.tokens[0, 0, : result.lengths[0, 0]].tolist())
    order = sorted(totals, key=lambda tokens: (len(tokens), -totals[tokens], tokens))
    indices = {tokens: index for index, tokens in enumerate(order)}
    return [
        Node(
            indices[tokens[:-1]],
            tokens[-1] if tokens else BOS,
            len(tokens),
            totals[tokens],
            final_scores.get(tokens),
            best[: len(tokens)] == tokens,
        )
        for tokens in order
    ]


def _states(search: Search, cache: object, ops: CacheOps) -> Iterator:
    """States of the search after each step."""
    search_step = jax.jit(search.step)
    state = search.init(ops.extend(cache, ops.cache_stages[-1]))
    while bool(search.active(state).any()):
        state = search_step(state)
        yield jax.device_get(state)


def _rows(x: np.ndarray) -> np.ndarray:
    return x.reshape(-1, x.shape[-1])
