"""The loss compared with the textbook formula, with one-hot targets and float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.batch import PAD
from train.loss import Metrics, cross_entropy, token_losses

B, T, V = 3, 5, 11


@pytest.fixture
def example():
    random = np.random.default_rng(0)
    logits = (4 * random.normal(size=(B, T, V))).astype(np.float32)
    targets = random.integers(1, V, (B, T)).astype(np.int32)
    targets[1, 3:] = PAD
    targets[2] = PAD
    return logits, targets


def textbook(logits, targets, label_smoothing, weights=None):
    """Loss sum, nll sum, correct, tokens, and the gradient of the loss sum, with one-hots."""
    logits = logits.astype(np.float64)
    weights = (targets != PAD).astype(np.float64) if weights is None else weights
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    one_hot = np.eye(V)[targets]
    smoothed = (1 - label_smoothing) * one_hot + label_smoothing / V
    loss = -(smoothed * log_p).sum(-1)
    nll = -(one_hot * log_p).sum(-1)
    correct = logits.argmax(-1) == targets
    sums = [(weights * x).sum() for x in (loss, nll, correct)] + [weights.sum()]
    return sums, weights[..., None] * (np.exp(log_p) - smoothed)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_sums_equal_the_textbook_formula(example, label_smoothing):
    metrics = cross_entropy(*map(jnp.asarray, example), label_smoothing)
    expected, _ = textbook(*example, label_smoothing)
    np.testing.assert_allclose(np.asarray(metrics[:4]), expected, rtol=1e-6)
    assert all(x.dtype == jnp.float32 and x.shape == () for x in metrics[:4])


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_gradient_equals_the_textbook_formula(example, label_smoothing):
    logits, targets = map(jnp.asarray, example)
    gradient = jax.grad(lambda x: cross_entropy(x, targets, label_smoothing).loss_sum)(logits)
    np.testing.assert_allclose(gradient, textbook(*example, label_smoothing)[1], atol=1e-6)
    assert not gradient[2].any()  # padding has no gradient


def test_the_custom_gradient_equals_autodiff(example):
    """For any combination of loss and nll, which are both differentiable."""
    logits, targets = map(jnp.asarray, example)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(2, B, T)), jnp.float32)

    def autodiff_loss(x):
        log_p = jax.nn.log_softmax(x)
        nll = -jnp.take_along_axis(log_p, targets[..., None], -1)[..., 0]
        return jnp.sum(weights[0] * (0.7 * nll - 0.3 * log_p.mean(-1)) + weights[1] * nll)

    def custom_loss(x):
        loss, nll, _ = token_losses(x, targets, 0.3)
        return jnp.sum(weights[0] * loss + weights[1] * nll)

    np.testing.assert_allclose(
        jax.grad(custom_loss)(logits), jax.grad(autodiff_loss)(logits), atol=1e-6
    )


def test_weights_replace_the_padding_mask(example):
    logits, targets = example
    weights = np.random.default_rng(2).random((B, T))
    metrics = cross_entropy(*map(jnp.asarray, (logits, targets)), 0.1, jnp.asarray(weights))
    np.testing.assert_allclose(
        np.asarray(metrics[:4]), textbook(logits, targets, 0.1, weights)[0], rtol=1e-6
    )


def test_huge_logits_stay_finite():
    logits = jnp.asarray([[[1e30, -1e30, 0.0], [1e4, 1e4, 1e4]]])
    loss = lambda x: cross_entropy(x, jnp.asarray([[1, 2]]), 0.1).nll_sum  # noqa: E731
    assert np.isfinite(jax.value_and_grad(loss)(logits)[0])
    assert np.isfinite(jax.grad(loss)(logits)).all()


def test_metrics_of_parts_add_up(example):
    logits, targets = map(jnp.asarray, example)
    total = cross_entropy(logits, targets, 0.1)
    parts = [cross_entropy(logits[i : i + 1], targets[i : i + 1], 0.1) for i in range(B)]
    summed = sum(parts, start=Metrics.zero())
    np.testing.assert_allclose(np.asarray(summed), np.asarray(total), rtol=1e-6)
    (loss, nll, correct, tokens), _ = textbook(*example, 0.1)
    assert summed.to_dict() == pytest.approx(
        {
            "loss": loss / tokens,
            "nll": nll / tokens,
            "accuracy": correct / tokens,
            "perplexity": np.exp(nll / tokens),
        },
        rel=1e-5,
    )
    assert np.isnan(Metrics.zero().to_dict()["loss"])


def test_the_backward_pass_allocates_no_second_logits_array():
    logits, targets = jnp.zeros((8, 16, 4096)), jnp.ones((8, 16), jnp.int32)
    loss = jax.jit(jax.value_and_grad(lambda x: cross_entropy(x, targets, 0.1).loss_sum))
    assert loss.lower(logits).compile().memory_analysis().temp_size_in_bytes < logits.nbytes / 10
