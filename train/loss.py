"""Label-smoothed cross-entropy (paper 5.4) as sums over tokens.

With smoothing eps a target is worth q' = (1 - eps) * delta(target) + eps / V (Szegedy et al. 2016,
section 7), so that the cross-entropy with softmax(logits) is, without q' ever being an array,

    logsumexp(logits) - (1 - eps) * logits[target] - eps * mean(logits)

and its gradient in the logits is softmax(logits) - q'.  Axes: B batch, T length, V vocabulary.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from data.batch import PAD
from model.family import Features
from model.float32_products import float32_einsum
from model.sharding import constrain


class Metrics(NamedTuple):
    """Sums, float32 scalars: they add over steps, devices and hosts; ratios come last.

    `loss_sum`, `nll_sum` and `correct` are over real target tokens, `tokens` of them. The rest is
    for a training run's own account and is 0 where nobody filled it in.
    """

    loss_sum: Array | float  # what training minimises, in nats; with label smoothing
    nll_sum: Array | float  # negative log-likelihood, in nats; without
    correct: Array | float  # tokens whose target had the highest logit
    tokens: Array | float  # target tokens that are not PAD, EOS included
    source_tokens: Array | float = 0.0  # the source's
    num_positions: Array | float = 0.0  # of the batches, source and target, PAD too
    updates: Array | float = 0.0
    grad_norm_sum: Array | float = 0.0  # each update's global gradient norm, before clipping
    skipped: Array | float = 0.0  # updates left out, their loss or gradient not being finite

    @classmethod
    def zero(cls) -> "Metrics":
        """The sums of nothing."""
        return cls(*[0.0] * len(cls._fields))

    def __add__(self, other: "Metrics") -> "Metrics":  # type: ignore[override]  # no tuple's
        return Metrics(*(a + b for a, b in zip(self, other, strict=True)))

    @property
    def loss(self):
        return self.loss_sum / self.tokens

    @property
    def nll(self):
        return self.nll_sum / self.tokens

    @property
    def accuracy(self):
        return self.correct / self.tokens

    @property
    def perplexity(self):
        """Per subword token, so comparable only between models of one vocabulary."""
        return jnp.exp(self.nll)

    def to_dict(self) -> dict[str, float]:
        """Returns the four ratios as Python floats; of no tokens at all they are NaN."""
        names = ("loss", "nll", "accuracy", "perplexity")
        if not float(self.tokens):
            return dict.fromkeys(names, float("nan"))
        return {name: float(getattr(self, name)) for name in names}


def cross_entropy(
    logits: Array, targets: Array, label_smoothing: float = 0.0, weights: Array | None = None
) -> Metrics:
    """logits [B,T,V] float32, targets [B,T] ids -> the sums over targets that are not PAD.

    `weights` [B,T] replaces the weights that targets count with: by default PAD 0, others 1.
    """
    if weights is None:
        weights = targets != PAD
    weights = weights.astype(jnp.float32)
    losses = token_losses(logits, targets, label_smoothing)
    loss, nll, correct = (jnp.sum(weights * each) for each in losses)
    return Metrics(loss, nll, correct, jnp.sum(weights))


def features_cross_entropy(features: Features, label_smoothing: float = 0.0) -> Metrics:
    """The sums of `cross_entropy` over a model's features, out of all logits at once."""
    table = features.table.astype(features.hidden.dtype)
    logits = float32_einsum("btd,vd->btv", features.hidden, table)
    if features.bias is not None:
        logits += features.bias[None, None]
    logits = constrain(logits, "batch", "length", "vocab")
    return cross_entropy(logits, features.targets, label_smoothing, features.weights)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def token_losses(
    logits: Array, targets: Array, label_smoothing: float
) -> tuple[Array, Array, Array]:
    """logits [B,T,V], targets [B,T] -> loss, negative log-likelihood and correctness, each [B,T].

    Correct is 1.0 or 0.0; a target that ties for the highest logit counts as correct. The backward
    pass keeps nothing of size V but the logits themselves.
    """
    return _token_losses(logits, targets, label_smoothing)[0]


def _token_losses(logits, targets, label_smoothing):
    highest = jnp.max(logits, axis=-1)
    log_sum = highest + jnp.log(jnp.sum(jnp.exp(logits - highest[..., None]), axis=-1))
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    loss = log_sum - (1 - label_smoothing) * chosen - label_smoothing * jnp.mean(logits, axis=-1)
    correct = (chosen >= highest).astype(jnp.float32)
    return (loss, log_sum - chosen, correct), (logits, targets, log_sum)


def _token_losses_gradient(label_smoothing, kept, gradients):
    logits, targets, log_sum = kept
    of_loss, of_nll, _ = (g[..., None] for g in gradients)
    probability = jnp.exp(logits - log_sum[..., None])
    # A comparison instead of a scatter: the compiler writes the whole gradient in one pass.
    hit = lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1) == targets[..., None]
    aim = jnp.where(hit, (1 - label_smoothing) * of_loss + of_nll, 0.0)
    return (of_loss + of_nll) * probability - aim - label_smoothing / logits.shape[
        -1
    ] * of_loss, None


token_losses.defvjp(_token_losses, _token_losses_gradient)
