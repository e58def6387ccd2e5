"""Transforms against plain loops over tokens, and what a search that they steer may write."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from decode import transforms as t
from decode.length_normalization import coverage_penalty, gnmt
from decode.loop import NextToken
from decode.sample import greedy, sample, sampled

EOS = 2
B, W, L, V = 3, 2, 8, 6


@pytest.fixture(scope="module")
def some():
    random = np.random.default_rng(0)
    log_probs = jax.nn.log_softmax(jnp.asarray(random.normal(size=(B, W, V)), jnp.float32))
    tokens = jnp.asarray(random.integers(0, 3, (B, W, L)), jnp.int32)
    return np.asarray(log_probs), np.asarray(tokens)


def applied(transform, some, index):
    return np.asarray(jax.jit(transform)(*map(jnp.asarray, some), jnp.int32(index)))


def expected(some, index, forbidden):
    """`forbidden(what is written, token)` says whether the token may not follow."""
    log_probs, tokens = some
    out = log_probs.copy()
    for b in range(B):
        for w in range(W):
            written = tokens[b, w, :index].tolist()
            for token in range(V):
                if forbidden(written, token):
                    out[b, w, token] = -np.inf
    return out


def occurs(phrase, row):
    return any(row[i : i + len(phrase)] == list(phrase) for i in range(len(row)))


@pytest.mark.parametrize("index", range(L))
def test_banned_phrases(some, index):
    phrases = [(4,), (1, 2), (0, 1, 0), (0, 2), (2, 0), (1,) * 20]
    ends = lambda row, token: any(row[-len(p) :] == list(p) for p in phrases)  # noqa: E731
    found = applied(t.ban_phrases(phrases), some, index)
    np.testing.assert_array_equal(
        found, expected(some, index, lambda row, token: ends([*row, token], token))
    )


@pytest.mark.parametrize("size", [1, 2, 3, 9])
@pytest.mark.parametrize("index", range(L))
def test_no_repeated_ngrams(some, index, size):
    def again(row, token):
        return len(row) >= size - 1 and occurs([*row[len(row) - size + 1 :], token], row)

    found = applied(t.no_repeat_ngrams(size), some, index)
    np.testing.assert_array_equal(found, expected(some, index, again))


@pytest.mark.parametrize("index", [0, 3, L - 1])
def test_the_others(some, index):
    log_probs, tokens = some
    found = applied(t.repetition_penalty(2.0), some, index)
    for b, w in np.ndindex(B, W):
        seen = set(tokens[b, w, :index].tolist())
        factors = [2.0 if v in seen else 1.0 for v in range(V)]
        np.testing.assert_allclose(found[b, w], log_probs[b, w] * factors, rtol=1e-6)


def test_a_prefix_is_forced_and_only_then_others_hold(some):
    prefix = jnp.array([[4, 5], [3, 0], [0, 0]], jnp.int32)
    then = t.ban_phrases([(4,), (3,)])
    forced = t.forced_prefix(prefix, jnp.array([2, 1, 0], jnp.int32), then)
    first, second = applied(forced, some, 0), applied(forced, some, 1)
    assert np.isfinite(first[0]).tolist() == [[v == 4 for v in range(V)]] * W
    assert np.isfinite(first[1]).tolist() == [[v == 3 for v in range(V)]] * W
    assert np.isfinite(second[0]).tolist() == [[v == 5 for v in range(V)]] * W
    for row in first[2], second[1]:
        assert np.isfinite(row).tolist() == [[v not in (3, 4) for v in range(V)]] * W


def test_filters_keep_what_their_papers_say(some):
    log_probs, _ = some
    probabilities = np.exp(log_probs)
    ranked = -np.sort(-probabilities, -1)
    kept = np.isfinite(applied(t.top_k(2), some, 0))
    np.testing.assert_array_equal(kept, probabilities >= ranked[..., 1:2])
    kept = np.isfinite(applied(t.top_p(0.7), some, 0))
    for b, w in np.ndindex(B, W):
        count = 1 + int((np.cumsum(ranked[b, w]) < 0.7 - 1e-7).sum())
        assert kept[b, w].sum() == count
        assert probabilities[b, w][kept[b, w]].min() >= ranked[b, w, count - 1] - 1e-7
    kept = np.isfinite(applied(t.min_p(0.5), some, 0))
    np.testing.assert_array_equal(kept, probabilities >= 0.5 * ranked[..., :1] * (1 - 2e-6))
    assert (np.isfinite(applied(t.min_p(1.0), some, 0)).sum(-1) == 1).all()
    sharp = np.exp(applied(t.temperature(0.5), some, 0))
    squares = probabilities**2
    np.testing.assert_allclose(sharp, squares / squares.sum(-1, keepdims=True), rtol=1e-4)


def draw(count, batch=2, seeds=(0, 1), select_token=None, transform=None):
    """Samples of one token from a fixed distribution, then EOS."""
    log_probs = jnp.log(jnp.array([0.0, 0.0, 0.0, 0.1, 0.3, 0.6]))
    end = jnp.where(jnp.arange(V) == EOS, 0.0, -jnp.inf)

    def step(tokens, cache, index):
        row = jnp.where(index == 0, log_probs, end)
        row = jnp.broadcast_to(row, (batch, count, V))
        return NextToken(row, jnp.zeros((batch, count)), row[..., EOS]), cache

    keys = jax.vmap(jax.random.key)(jnp.array(seeds, jnp.uint32))
    return sample(
        step,
        (),
        jnp.ones(batch, jnp.int32),
        jnp.full(batch, 3, jnp.int32),
        eos=EOS,
        max_length=3,
        select_token=select_token or sampled(keys),
        width=count,
        length_norm=gnmt(0.0),
        transform=transform,
    )


def test_samples_follow_the_distribution_and_carry_its_scores():
    found = draw(4000)
    first = np.asarray(found.tokens[..., 0])
    for b in range(2):
        shares = [(first[b] == v).mean() for v in (3, 4, 5)]
        np.testing.assert_allclose(shares, [0.1, 0.3, 0.6], atol=0.03)
    expected = np.log(np.array([0, 0, 0, 0.1, 0.3, 0.6]) + 1e-30)[first]
    np.testing.assert_allclose(found.scores, expected, rtol=1e-5)
    assert (found.lengths == 2).all() and (found.tokens[..., 1] == EOS).all()
    assert (draw(3, select_token=greedy).tokens[..., 0] == 5).all()


def test_a_sample_depends_on_its_sentences_key_and_its_number_alone():
    many = draw(50)
    few = draw(7, batch=3, seeds=(9, 1, 0))
    np.testing.assert_array_equal(few.tokens[1], many.tokens[1, :7])
    np.testing.assert_array_equal(few.tokens[2], many.tokens[0, :7])
    assert (many.tokens[0] != many.tokens[1]).any()
    # A filter moves what is drawn from, never the score under the model.
    filtered = draw(50, transform=t.top_k(1))
    assert (filtered.tokens[..., 0] == 5).all()
    np.testing.assert_allclose(filtered.scores, np.log(0.6), rtol=1e-5)


def test_coverage_penalty_is_wu_et_al_2016():
    covered = np.array([[[0.5, 2.0, 0.1, 9.0]]], np.float32)
    valid = np.array([[True, True, True, False]])
    found = coverage_penalty(jnp.asarray(covered), jnp.asarray(valid), 0.2)
    assert np.isclose(found[0, 0], 0.2 * (np.log(0.5) + np.log(0.1)))
