"""Family: the interface between training and a model.

A family is a Flax module with these methods, in its own file, and its config; a row of
model/families.py registers it. Training uses nothing else: train/ depends on `features` and a loss.
The interface for search is decode/family.py.
"""

from typing import Any, NamedTuple, Protocol

from jax import Array


class Features(NamedTuple):
    """Input of the loss (train/loss.py): logits are `hidden` times `table`, plus `bias`."""

    hidden: Array  # [B,T,D]
    table: Array  # [V,D]
    bias: Array | None  # [V]
    targets: Array  # [B,T] int32
    weights: Array  # [B,T] float32; 0 at positions without loss: padding, a prompt


class Trainable(Protocol):
    """What train/ updates: a `Family`, or LoRA adapters of one (model/lora.py)."""

    @property
    def config(self) -> Any:
        """The frozen, validated config."""

    def __hash__(self) -> int:
        """The hash by which compiled functions are cached."""

    def init_params(self, rng: Array) -> Any:
        """Initialize parameters, boxed with logical axis names."""

    def apply(self, variables: Any, *inputs, **options) -> Any:
        """Flax's `apply`; train/ calls it with a batch, `method="features"` and `train`."""


class Family(Trainable, Protocol):
    """A model family: a Flax module."""

    def features(self, batch: Any, *, train: bool = False) -> Features:
        """Compute the input of the loss for a batch; a Flax method, called through `apply`."""
