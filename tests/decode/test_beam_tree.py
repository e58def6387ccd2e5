"""The beam tree compared with a list-based beam search and with translation."""

import jax.numpy as jnp
import numpy as np
import pytest

from decode.beam import beam_searcher
from decode.beam_tree import beam_tree, nodes
from decode.length_normalization import gnmt
from decode.loop import preallocated
from decode.options import InputError, SearchOptions
from decode.stopping import when_full
from model import Transformer
from tests.decode.tiny_model import CONFIG, sentences, translator
from tests.decode.toy_language import (
    EOS,
    all_continuations,
    gnmt_score,
    language,
    plain_beam,
    stop_after,
)


def paths(tree):
    """Token path from the root to each node; parents come before children."""
    tokens_of = {0: ()}
    for index, node in enumerate(tree[1:], 1):
        assert node.parent < index and node.step == tree[node.parent].step + 1
        tokens_of[index] = (*tokens_of[node.parent], node.token)
    return tokens_of


@pytest.mark.parametrize("seed", range(3))
def test_a_beam_tree_has_all_hypotheses_of_a_plain_beam_search(seed):
    vocab, length, width = 5, 5, 3
    log_prob, step = language(seed, 1, vocab, length)
    visited = {}

    def is_done(finished, live, n):
        visited.update((tokens, total) for total, tokens in live)
        visited.update((tokens, None) for _, tokens in finished)
        return stop_after(width)(finished, live, n)

    def candidates_of(live, n):
        return all_continuations(lambda prefix: log_prob(0, prefix), live, end=n == length)

    expected, _ = plain_beam(candidates_of, length, width, gnmt_score(0.6), is_done)
    ops = preallocated(length)
    search = beam_searcher(
        step,
        jnp.full(1, 1, jnp.int32),
        jnp.full(1, length, jnp.int32),
        eos=EOS,
        beam_size=width,
        max_length=length,
        length_norm=gnmt(0.6),
        stopping=when_full(),
        reorder=ops.reorder,
    )
    tree = nodes(search, jnp.zeros((1, width), jnp.int32), ops)
    path_of = paths(tree)
    visited.update((tokens, None) for _, tokens in expected)
    assert set(path_of.values()) == {(), *visited}
    for index, tokens in path_of.items():
        if visited.get(tokens) is not None:
            np.testing.assert_allclose(tree[index].total, visited[tokens], rtol=1e-5)
    finished_scores = {
        path_of[n]: node.score for n, node in enumerate(tree) if node.score is not None
    }
    assert max(finished_scores, key=finished_scores.get) == expected[0][1]
    for score, tokens in expected:
        np.testing.assert_allclose(finished_scores[tokens], score, rtol=1e-5)
    best = [path_of[n] for n, node in enumerate(tree) if node.best]
    assert best == [expected[0][1][:n] for n in range(len(expected[0][1]) + 1)]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"alpha": 1.0}, {"num_groups": 2, "diversity_penalty": 1.0}])
def test_finished_nodes_of_a_beam_tree_are_the_translations(vocabulary, params, options):
    options = SearchOptions(max_length=9, n_best=4, **options)
    (text, *_) = sentences(1)
    tree = beam_tree(Transformer(CONFIG), params, vocabulary, text, options)
    path_of = paths(tree)
    finished_scores = {
        path_of[n]: node.score for n, node in enumerate(tree) if node.score is not None
    }
    reference = translator(params, vocabulary, max_length=9, n_best=4, alpha=options.alpha,
                           num_groups=options.num_groups,
                           diversity_penalty=options.diversity_penalty)  # fmt: skip
    (expected,) = reference.hypotheses([text])
    for hypothesis in expected:
        np.testing.assert_allclose(finished_scores[hypothesis.tokens], hypothesis.score, atol=1e-4)
    (best,) = (path_of[n] for n, node in enumerate(tree) if node.best and node.score is not None)
    assert best == expected[0].tokens


def test_a_beam_tree_rejects_unsupported_input(vocabulary, params):
    tree = lambda text, **options: beam_tree(  # noqa: E731
        Transformer(CONFIG), params, vocabulary, text, SearchOptions(**options)
    )
    with pytest.raises(InputError, match="a sentence that is not empty"):
        tree(" ")
    with pytest.raises(InputError, match="needs --method=beam without --coverage"):
        tree("a", method="greedy")
    with pytest.raises(InputError, match="line 1 has .* tokens, more than"):
        tree("monday " * 300)
