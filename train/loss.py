"""Label-smoothed cross-entropy (paper 5.4) as sums over tokens.

With smoothing eps the target distribution is q' = (1 - eps) * delta(target) + eps / V (Szegedy et
al. 2016, section 7). The cross-entropy with softmax(logits) then needs no array for q':

    logsumexp(logits) - (1 - eps) * logits[target] - eps * mean(logits)

Its gradient in the logits is softmax(logits) - q'.  Axes: B batch, T length, V vocabulary.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from data.batch import PAD
from model.einsum import float32_einsum
from model.family import Features
from model.sharding import constrain


class Metrics(NamedTuple):
    """Metrics as sums, float32 scalars: they add over steps, devices and hosts.

    `loss_sum`, `nll_sum` and `correct` are sums over the `tokens` real target tokens. The other
    fields are set by training only, and 0 otherwise.
    """

    loss_sum: Array | float  # the training loss, in nats, with label smoothing
    nll_sum: Array | float  # negative log-likelihood, in nats, without label smoothing
    correct: Array | float  # tokens whose target had the highest logit
    tokens: Array | float  # target tokens that are not PAD, EOS included
    source_tokens: Array | float = 0.0  # source tokens that are not PAD
    num_positions: Array | float = 0.0  # positions of source and target, PAD included
    updates: Array | float = 0.0
    grad_norm_sum: Array | float = 0.0  # global gradient norms of the updates, before clipping
    skipped: Array | float = 0.0  # updates skipped because loss or gradient was not finite

    @classmethod
    def zero(cls) -> "Metrics":
        """Zero sums."""
        return cls(*[0.0] * len(cls._fields))

    def __add__(self, other: "Metrics") -> "Metrics":  # type: ignore[override]  # hides tuple.__add__
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
        """Perplexity per subword token: comparable only between models of the same vocabulary."""
        return jnp.exp(self.nll)

    def to_dict(self) -> dict[str, float]:
        """Return the four ratios as Python floats; without any tokens they are NaN."""
        names = ("loss", "nll", "accuracy", "perplexity")
        if not float(self.tokens):
            return dict.fromkeys(names, float("nan"))
        return {name: float(getattr(self, name)) for name in names}


def cross_entropy(
    logits: Array, targets: Array, label_smoothing: float = 0.0, weights: Array | None = None
) -> Metrics:
    """Cross-entropy of logits [B,T,V] float32 and targets [B,T]: sums over all targets except PAD.

    `weights` [B,T] replaces the default weights of targets: 0 for PAD, 1 for others.
    """
    if weights is None:
        weights = targets != PAD
    weights = weights.astype(jnp.float32)
    losses = token_losses(logits, targets, label_smoothing)
    loss, nll, correct = (jnp.sum(weights * token_loss) for token_loss in losses)
    return Metrics(loss, nll, correct, jnp.sum(weights))


def features_cross_entropy(features: Features, label_smoothing: float = 0.0) -> Metrics:
    """The sums of `cross_entropy` from a model's features, with all logits at once."""
    logits = output_logits(features.hidden, features.table, features.bias)
    logits = constrain(logits, "batch", "length", "vocab")
    return cross_entropy(logits, features.targets, label_smoothing, features.weights)


def output_logits(hidden: Array, table: Array, bias: Array | None) -> Array:
    """hidden [...,D], table [V,D], bias [V] -> logits float32 [...,V]."""
    logits = float32_einsum("...d,vd->...v", hidden, table.astype(hidden.dtype))
    return logits if bias is None else logits + jnp.expand_dims(bias, tuple(range(hidden.ndim - 1)))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def token_losses(
    logits: Array, targets: Array, label_smoothing: float
) -> tuple[Array, Array, Array]:
    """Per-token losses: logits [...,V], targets [...] -> loss, nll and correctness, each [...].

    Correctness is 1.0 or 0.0; a target that ties for the highest logit is correct. The only
    residuals of size V for the backward pass are the logits themselves.
    """
    return _token_losses(logits, targets, label_smoothing)[0]


def _token_losses(logits, targets, label_smoothing):
    max_logits = jnp.max(logits, axis=-1)
    log_sum = max_logits + jnp.log(jnp.sum(jnp.exp(logits - max_logits[..., None]), axis=-1))
    losses = losses_from_log_sum(logits, targets, log_sum, max_logits, label_smoothing)
    return losses, (logits, targets, log_sum)


def _token_losses_gradient(label_smoothing, residuals, gradients):
    logits, targets, log_sum = residuals
    loss_grad, nll_grad, _ = gradients
    return logits_gradient(logits, targets, log_sum, label_smoothing, loss_grad, nll_grad), None


token_losses.defvjp(_token_losses, _token_losses_gradient)


def losses_from_log_sum(
    logits: Array, targets: Array, log_sum: Array, max_logits: Array, label_smoothing: float
) -> tuple[Array, Array, Array]:
    """The results of `token_losses`, from logsumexp and maximum of the logits, each [...]."""
    target_logits = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    mean = jnp.mean(logits, axis=-1)
    loss = log_sum - (1 - label_smoothing) * target_logits - label_smoothing * mean
    correct = (target_logits >= max_logits).astype(jnp.float32)
    return loss, log_sum - target_logits, correct


def logits_gradient(
    logits: Array,
    targets: Array,
    log_sum: Array,
    label_smoothing: float,
    loss_grad: Array,
    nll_grad: Array | float = 0.0,
) -> Array:
    """The gradient [...,V] from gradients of the loss and the negative log-likelihood, [...]."""
    probability = jnp.exp(logits - log_sum[..., None])
    # A comparison instead of a scatter: the compiler writes the whole gradient in one pass.
    ids = lax.broadcasted_iota(targets.dtype, logits.shape, logits.ndim - 1)
    is_target = ids == targets[..., None]
    sums = loss_grad + nll_grad
    target_grad = jnp.where(is_target, (sums - label_smoothing * loss_grad)[..., None], 0.0)
    smoothing_grad = (label_smoothing / logits.shape[-1] * loss_grad)[..., None]
    return sums[..., None] * probability - target_grad - smoothing_grad
