"""A beam's tree against a beam in lists, and against the search that translates."""

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
from tests.decode.toy_language import EOS, enough, every_choice, language, plain_beam, wu


def paths(tree):
    """Each node's tokens from the root to it; parents come before children."""
    found = {0: ()}
    for number, node in enumerate(tree[1:], 1):
        assert node.parent < number and node.step == tree[node.parent].step + 1
        found[number] = (*found[node.parent], node.token)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_a_tree_has_what_a_beam_in_lists_kept(seed):
    vocab, length, width = 5, 5, 3
    log_prob, step = language(seed, 1, vocab, length)
    kept = {}

    def over(pool, live, n):
        kept.update((tokens, total) for total, tokens in live)
        kept.update((tokens, None) for _, tokens in pool)
        return enough(width)(pool, live, n)

    def offered(live, n):
        return every_choice(lambda prefix: log_prob(0, prefix), live, end=n == length)

    expected, _ = plain_beam(offered, length, width, wu(0.6), over)
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
    at = paths(tree)
    kept.update((tokens, None) for _, tokens in expected)
    assert set(at.values()) == {(), *kept}
    for number, tokens in at.items():
        if kept.get(tokens) is not None:
            np.testing.assert_allclose(tree[number].total, kept[tokens], rtol=1e-5)
    ended = {at[n]: node.score for n, node in enumerate(tree) if node.score is not None}
    assert max(ended, key=ended.get) == expected[0][1]
    for score, tokens in expected:
        np.testing.assert_allclose(ended[tokens], score, rtol=1e-5)
    best = [at[n] for n, node in enumerate(tree) if node.best]
    assert best == [expected[0][1][:n] for n in range(len(expected[0][1]) + 1)]


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"alpha": 1.0}, {"num_groups": 2, "diversity_penalty": 1.0}])
def test_a_tree_ends_in_what_is_translated(vocabulary, params, options):
    options = SearchOptions(max_length=9, n_best=4, **options)
    (text, *_) = sentences(1)
    tree = beam_tree(Transformer(CONFIG), params, vocabulary, text, options)
    at = paths(tree)
    ended = {at[n]: node.score for n, node in enumerate(tree) if node.score is not None}
    translating = translator(params, vocabulary, max_length=9, n_best=4, alpha=options.alpha,
                             num_groups=options.num_groups,
                             diversity_penalty=options.diversity_penalty)  # fmt: skip
    (found,) = translating.hypotheses([text])
    for hypothesis in found:
        np.testing.assert_allclose(ended[hypothesis.tokens], hypothesis.score, atol=1e-4)
    (best,) = (at[n] for n, node in enumerate(tree) if node.best and node.score is not None)
    assert best == found[0].tokens


def test_what_has_no_tree_is_refused(vocabulary, params):
    tree = lambda text, **options: beam_tree(  # noqa: E731
        Transformer(CONFIG), params, vocabulary, text, SearchOptions(**options)
    )
    with pytest.raises(InputError, match="an empty sentence"):
        tree(" ")
    with pytest.raises(InputError, match="of --method=beam, and without --coverage"):
        tree("a", method="greedy")
    with pytest.raises(InputError, match="line 1 has .* tokens, more than"):
        tree("monday " * 300)
