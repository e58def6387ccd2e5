"""Mixers: self-attention, or a recurrence in its place, in the decoder.

A row of `MIXERS` is a value of `model.decoder_mixer`. A recurrence is trained, decoded, sharded and
checkpointed like attention; its state is one float32 vector [D] per layer for any length.
"""

from collections.abc import Callable
from typing import NamedTuple

from jax import Array

from model.ssru import ssru


class Recurrence(NamedTuple):
    """A recurrence over projections of the layer's input."""

    function: Callable[..., tuple[Array, Array]]  # (projections .., state, starts), as `ssru`
    projections: tuple[tuple[str, bool], ...]  # names of matrices [D,D]; whether with a bias


MIXERS: dict[str, Recurrence | None] = {
    "attention": None,
    "ssru": Recurrence(ssru, (("candidate", False), ("forget", True))),
}
