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


class Family(Protocol):
    """A model as training uses it: a Flax module, or one adapted by LoRA (model/lora.py)."""

    @property
    def config(self) -> Any:
        """The frozen, validated config."""

    def __hash__(self) -> int:
        """The hash by which compiled functions are cached."""

    def init_params(self, rng: Array) -> Any:
        """Initialize parameters, boxed with logical axis names."""

    def apply(self, variables: Any, *inputs, **options) -> Any:
        """Flax's `apply`; with a batch, `method="features"` and `train` it returns `Features`."""
