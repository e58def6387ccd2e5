"""Family: what training asks of a model.

A family is a Flax module with these methods, in a file of its own, and its config; a row of
model/families.py names it. Training knows no more of it: train/ depends on `features` and a loss.
What search asks is decode/family.py.
"""

from typing import Any, NamedTuple, Protocol

from jax import Array


class Features(NamedTuple):
    """Input of the loss (train/loss.py): logits are `hidden` times `table`, plus `bias`."""

    hidden: Array  # [B,T,D]
    table: Array  # [V,D]
    bias: Array | None  # [V]
    targets: Array  # [B,T] int32
    weights: Array  # [B,T] float32; 0 where nothing is to be learned: padding, a prompt


class Family(Protocol):
    """A model as training knows it: a Flax module, or one that LoRA adapts (model/lora.py)."""

    @property
    def config(self) -> Any:
        """Its frozen, validated config."""

    def __hash__(self) -> int:
        """Compiled functions are kept by it."""

    def init_params(self, rng: Array) -> Any:
        """Fresh parameters, in boxes of logical axis names."""

    def apply(self, variables: Any, *inputs, **options) -> Any:
        """Flax's `apply`: of a batch, with `method="features"` and `train`, its `Features`."""
