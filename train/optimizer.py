"""Adam, learning-rate schedules (paper 5.3) and common alternatives.

Functions take names and numbers, not configuration objects, and return optax objects.
"""

from collections.abc import Callable
from difflib import get_close_matches

import jax
import jax.numpy as jnp
import optax

from model.config import ConfigError

SCHEDULES = ("noam", "inverse_sqrt", "cosine", "linear", "constant")
OPTIMIZERS = ("adam", "adamw")


def make_schedule(
    name: str,
    *,
    learning_rate: float,
    warmup_steps: int,
    d_model: int | None = None,
    decay_steps: int | None = None,
) -> Callable[[int | jax.Array], jax.Array]:
    """Make a learning-rate schedule: a function of the number of updates so far, as in optax.

    With step counted from 1, w = warmup_steps, and a linear warm-up min(step / w, 1) in each:

    - noam: learning_rate * d_model^-0.5 * min(step^-0.5, step * w^-1.5), the paper's equation 3;
      learning_rate is a factor, 1 in the paper
    - inverse_sqrt: learning_rate * min(step / w, (w / step)^0.5): the same curve, given its peak
    - cosine, linear: from learning_rate at w down to zero at `decay_steps`, and zero afterwards
    - constant: learning_rate

    Raises ConfigError for an unknown name, and for numbers that the schedule cannot use.
    """
    _check_name("schedule", name, SCHEDULES)
    if learning_rate <= 0:
        raise ConfigError(f"optimizer.learning_rate={learning_rate} must be above 0")
    if warmup_steps < 0:
        raise ConfigError(f"optimizer.warmup_steps={warmup_steps} must be at least 0")
    if name == "noam" and d_model is None:
        raise ConfigError("optimizer.schedule='noam' needs the model's d_model")
    if name in ("cosine", "linear") and (decay_steps or 0) <= max(warmup_steps, 1):
        raise ConfigError(
            f"optimizer.decay_steps={decay_steps} must be above "
            f"optimizer.warmup_steps={warmup_steps} for optimizer.schedule={name!r}"
        )
    warmup = float(max(warmup_steps, 1))

    def schedule(updates_before):
        step = jnp.asarray(updates_before, jnp.float32) + 1.0
        rise = jnp.minimum(step / warmup, 1.0)
        if name == "noam":
            assert d_model is not None
            return learning_rate * d_model**-0.5 * jnp.minimum(step**-0.5, step * warmup**-1.5)
        if name == "inverse_sqrt":
            return learning_rate * jnp.minimum(rise, (warmup / step) ** 0.5)
        if name == "constant":
            return learning_rate * rise
        assert decay_steps is not None
        remaining = jnp.clip((decay_steps - step) / (decay_steps - warmup), 0.0, 1.0)
        decay = remaining if name == "linear" else 0.5 - 0.5 * jnp.cos(jnp.pi * remaining)
        return learning_rate * rise * decay

    return schedule


def make_optimizer(
    name: str,
    schedule: optax.Schedule | float,
    *,
    b1: float = 0.9,
    b2: float = 0.98,
    epsilon: float = 1e-9,
    weight_decay: float = 0.0,
    clip_norm: float = 0.0,
    mu_dtype: str = "float32",
) -> optax.GradientTransformation:
    """Make Adam with the paper's constants, or AdamW (Loshchilov and Hutter 2019).

    `weight_decay` is for AdamW, and excludes biases and norm scales; `clip_norm` first clips the
    global norm of the gradient (0: no clipping). The first moment is stored in `mu_dtype`; the
    second moment, whose updates may be too small for bfloat16, always in float32. Raises
    ConfigError for an unknown name.
    """
    _check_name("name", name, OPTIMIZERS)
    _check_name("mu_dtype", mu_dtype, ("float32", "bfloat16"))
    if weight_decay and name == "adam":
        raise ConfigError(
            f"optimizer.weight_decay={weight_decay} needs optimizer.name=adamw; adam has none"
        )
    if clip_norm < 0:
        raise ConfigError(f"optimizer.clip_norm={clip_norm} must be at least 0 (0: no clipping)")
    steps = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    steps.append(optax.scale_by_adam(b1, b2, epsilon, mu_dtype=mu_dtype))
    if weight_decay:
        steps.append(optax.add_decayed_weights(weight_decay, mask=_weight_decay_mask))
    steps.append(optax.scale_by_learning_rate(schedule))
    return _with_standard_promotion(optax.chain(*steps))


def _with_standard_promotion(tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Allow optax's bias correction in Adam, float ** int, under strict type promotion."""

    def update(grads, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return tx.update(grads, state, params)

    return optax.GradientTransformation(tx.init, update)


def _weight_decay_mask(params):
    """True for each leaf with weight decay; by name, since biases may have several axes."""
    return jax.tree.map_with_path(
        lambda path, _: (
            not any(str(getattr(key, "key", "")).endswith(("bias", "scale")) for key in path)
        ),
        params,
    )


def _check_name(key: str, name: str, choices: tuple[str, ...]) -> None:
    if name not in choices:
        matches = get_close_matches(str(name), choices, n=1)
        hint = f"did you mean {matches[0]!r}? " if matches else ""
        raise ConfigError(
            f"optimizer.{key}={name!r} is unknown; {hint}one of: {', '.join(choices)}"
        )
