"""Plots of the paper's formulas, computed by Heed's code."""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from model.positions import sinusoids
from train.loss import token_losses


def positional_encodings(length: int, width: int, concatenated: bool = False) -> Figure:
    """Plot the sinusoids (3.5) of `length` positions in `width` dimensions, and their similarity.

    On the left, each row is the encoding of a position; on the right are the cosine similarities of
    all pairs of positions, which depend only on their distance.
    """
    encoded = np.asarray(sinusoids(jnp.arange(length, dtype=jnp.int32), width, concatenated))
    similarity = encoded @ encoded.T / (width / 2)  # every encoding has the norm sqrt(width / 2)
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, values, label in (left, encoded, "dimension"), (right, similarity, "position"):
        image = axes.imshow(values, cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
        axes.set(xlabel=label, ylabel="position")
    left.set_title(f"sinusoids, {'concatenated' if concatenated else 'interleaved'}")
    right.set_title("cosine of two positions' encodings")
    figure.colorbar(image, ax=[left, right])
    return figure


def learning_rates(schedules: Mapping[str, Callable], steps: int) -> Figure:
    """Plot the learning rate of the first `steps` updates, a line for each named schedule."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    updates = np.unique(np.linspace(0, steps - 1, 500).astype(int))
    for name, schedule in schedules.items():
        axes.plot(updates + 1, np.asarray(schedule(jnp.asarray(updates, jnp.int32))), label=name)
    axes.set(xlabel="update", ylabel="learning rate", xlim=(0, steps))
    axes.legend()
    return figure


def label_smoothing(vocab_size: int, amounts: tuple[float, ...] = (0.0, 0.1, 0.2)) -> Figure:
    """Plot the loss (5.4) over the probability of the target, a line for each smoothing amount.

    The other `vocab_size` - 1 tokens share the remaining probability equally. With smoothing, the
    loss is minimal where the model's probability equals that of the smoothed target.
    """
    probability = np.linspace(0.5, 0.999, 300)
    off_target = (1 - probability) / (vocab_size - 1)
    logits = np.log(
        np.concatenate([probability[:, None], off_target[:, None].repeat(vocab_size - 1, 1)], 1)
    )
    targets = jnp.zeros((1, len(probability)), jnp.int32)
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for amount in amounts:
        losses, *_ = token_losses(jnp.asarray(logits[None], jnp.float32), targets, amount)
        (line,) = axes.plot(probability, losses[0], label=f"smoothing {amount:g}")
        minimum = int(np.argmin(losses[0]))
        axes.plot(probability[minimum], losses[0, minimum], "o", color=line.get_color())
    axes.set(xlabel="probability of the target", ylabel="loss in nats", ylim=(0, None))
    axes.legend()
    return figure
