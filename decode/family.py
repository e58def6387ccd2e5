"""Generates: what a search asks of a model family; all are pure functions of its weights.

decode/forward.py has the encoder-decoder; a row of decode/families.py names a family by its config.
Axes: B batch, W beams, S length of the inputs, D width of hidden states, V vocabulary.
"""

from typing import Any, Protocol

from jax import Array

from decode.inputs import SearchBatch
from decode.kv_cache import BeamKVCache


class Generates(Protocol):
    """A model family that can be searched."""

    @property
    def config(self) -> Any:
        """Its config, with `target_vocab`, the number of ids that outputs are made of."""

    @property
    def cache_grows(self) -> bool:
        """Whether its cache holds all positions; a recurrent state has one size."""

    def pack(self, params: Any, precision: str) -> Any:
        """The parameters as weights of that precision (decode/weights.py)."""

    def start(self, weights: Any, request: SearchBatch) -> Any:
        """What steps read of the inputs: a source encoded, a prompt prefilled; leaves begin [B]."""

    def init_cache(self, rows: int) -> BeamKVCache:
        """The cache of one beam a row, without room for tokens."""

    def extend(self, cache: BeamKVCache, length: int, slots: int) -> BeamKVCache:
        """The cache with room for `length` tokens of `slots` beams a row."""

    def step(
        self, weights: Any, context: Any, tokens: Array, cache: BeamKVCache, index: Array
    ) -> tuple[Array, BeamKVCache, Array]:
        """One more token of each beam: [B,W] -> hidden states [B,W,D], the cache with this token,
        and how much attention each position of the inputs got, [B,W,S].

        `context` is what `start` returned, `index` how many tokens came before.
        """

    def logits(self, weights: Any, hidden: Array) -> tuple[Array, Array]:
        """Logits [B,W,V or more], and [B,W,UNK + 1] of the first ids again, from products apart."""
