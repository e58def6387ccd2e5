"""Transforms of log probabilities compared with plain loops, and sampling."""

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
def inputs():
    random = np.random.default_rng(0)
    log_probs = jax.nn.log_softmax(jnp.asarray(random.normal(size=(B, W, V)), jnp.float32))
    tokens = jnp.asarray(random.integers(0, 3, (B, W, L)), jnp.int32)
    return np.asarray(log_probs), np.asarray(tokens)


def apply(transform, inputs, index):
    return np.asarray(jax.jit(transform)(*map(jnp.asarray, inputs), jnp.int32(index)))


def expected(inputs, index, forbidden):
    """Log probabilities with -inf where `forbidden(tokens so far, token)`."""
    log_probs, tokens = inputs
    out = log_probs.copy()
    for b in range(B):
        for w in range(W):
            prefix = tokens[b, w, :index].tolist()
            for token in range(V):
                if forbidden(prefix, token):
                    out[b, w, token] = -np.inf
    return out


def occurs(phrase, row):
    return any(row[i : i + len(phrase)] == list(phrase) for i in range(len(row)))


@pytest.mark.parametrize("index", range(L))
def test_banned_phrases(inputs, index):
    phrases = [(4,), (1, 2), (0, 1, 0), (0, 2), (2, 0), (1,) * 20]
    ends = lambda row, token: any(row[-len(p) :] == list(p) for p in phrases)  # noqa: E731
    actual = apply(t.ban_phrases(phrases), inputs, index)
    np.testing.assert_array_equal(
        actual, expected(inputs, index, lambda row, token: ends([*row, token], token))
    )


@pytest.mark.parametrize("size", [1, 2, 3, 9])
@pytest.mark.parametrize("index", range(L))
def test_no_repeated_ngrams(inputs, index, size):
    def repeats(row, token):
        return len(row) >= size - 1 and occurs([*row[len(row) - size + 1 :], token], row)

    actual = apply(t.no_repeat_ngrams(size), inputs, index)
    np.testing.assert_array_equal(actual, expected(inputs, index, repeats))


@pytest.mark.parametrize("index", [0, 3, L - 1])
def test_repetition_penalty(inputs, index):
    log_probs, tokens = inputs
    actual = apply(t.repetition_penalty(2.0), inputs, index)
    for b, w in np.ndindex(B, W):
        seen = set(tokens[b, w, :index].tolist())
        factors = [2.0 if v in seen else 1.0 for v in range(V)]
        np.testing.assert_allclose(actual[b, w], log_probs[b, w] * factors, rtol=1e-6)


def test_a_prefix_is_forced_before_other_transforms_apply(inputs):
    prefix = jnp.array([[4, 5], [3, 0], [0, 0]], jnp.int32)
    inner = t.ban_phrases([(4,), (3,)])
    forced = t.forced_prefix(prefix, jnp.array([2, 1, 0], jnp.int32), inner)
    first, second = apply(forced, inputs, 0), apply(forced, inputs, 1)
    assert np.isfinite(first[0]).tolist() == [[v == 4 for v in range(V)]] * W
    assert np.isfinite(first[1]).tolist() == [[v == 3 for v in range(V)]] * W
    assert np.isfinite(second[0]).tolist() == [[v == 5 for v in range(V)]] * W
    for row in first[2], second[1]:
        assert np.isfinite(row).tolist() == [[v not in (3, 4) for v in range(V)]] * W


def test_sampling_filters_follow_their_papers(inputs):
    log_probs, _ = inputs
    probabilities = np.exp(log_probs)
    ranked = -np.sort(-probabilities, -1)
    kept = np.isfinite(apply(t.top_k(2), inputs, 0))
    np.testing.assert_array_equal(kept, probabilities >= ranked[..., 1:2])
    kept = np.isfinite(apply(t.top_p(0.7), inputs, 0))
    for b, w in np.ndindex(B, W):
        count = 1 + int((np.cumsum(ranked[b, w]) < 0.7 - 1e-7).sum())
        assert kept[b, w].sum() == count
        assert probabilities[b, w][kept[b, w]].min() >= ranked[b, w, count - 1] - 1e-7
    kept = np.isfinite(apply(t.min_p(0.5), inputs, 0))
    np.testing.assert_array_equal(kept, probabilities >= 0.5 * ranked[..., :1] * (1 - 2e-6))
    assert (np.isfinite(apply(t.min_p(1.0), inputs, 0)).sum(-1) == 1).all()
    sharp = np.exp(apply(t.temperature(0.5), inputs, 0))
    squares = probabilities**2
    np.testing.assert_allclose(sharp, squares / squares.sum(-1, keepdims=True), rtol=1e-4)


def sample_one_token(count, batch=2, seeds=(0, 1), select_token=None, transform=None):
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


def test_samples_follow_the_distribution_and_have_its_scores():
    samples = sample_one_token(4000)
    first_tokens = np.asarray(samples.tokens[..., 0])
    for b in range(2):
        frequencies = [(first_tokens[b] == v).mean() for v in (3, 4, 5)]
        np.testing.assert_allclose(frequencies, [0.1, 0.3, 0.6], atol=0.03)
    expected = np.log(np.array([0, 0, 0, 0.1, 0.3, 0.6]) + 1e-30)[first_tokens]
    np.testing.assert_allclose(samples.scores, expected, rtol=1e-5)
    assert (samples.lengths == 2).all() and (samples.tokens[..., 1] == EOS).all()
    assert (sample_one_token(3, select_token=greedy).tokens[..., 0] == 5).all()


def test_a_sample_depends_only_on_its_key_and_index():
    many = sample_one_token(50)
    few = sample_one_token(7, batch=3, seeds=(9, 1, 0))
    np.testing.assert_array_equal(few.tokens[1], many.tokens[1, :7])
    np.testing.assert_array_equal(few.tokens[2], many.tokens[0, :7])
    assert (many.tokens[0] != many.tokens[1]).any()
    # A filter changes the sampling distribution, not the model's score.
    filtered = sample_one_token(50, transform=t.top_k(1))
    assert (filtered.tokens[..., 0] == 5).all()
    np.testing.assert_allclose(filtered.scores, np.log(0.6), rtol=1e-5)


def test_coverage_penalty_equals_wu_et_al_2016():
    coverage = np.array([[[0.5, 2.0, 0.1, 9.0]]], np.float32)
    valid = np.array([[True, True, True, False]])
    penalty = coverage_penalty(jnp.asarray(coverage), jnp.asarray(valid), 0.2)
    assert np.isclose(penalty[0, 0], 0.2 * (np.log(0.5) + np.log(0.1)))
