"""Generates: the interface between search and a model family, pure functions of its weights.

decode/forward.py has the encoder-decoder; a row of decode/families.py names a family by its config.
Axes: B batch, W beams, S length of the inputs, D width of hidden states, V vocabulary.
"""

from typing import Any, Protocol

from jax import Array

from decode.kv_cache import BeamKVCache
from decode.search_batch import SearchBatch


class Generates(Protocol):
    """A model family that can be searched."""

    @property
    def config(self) -> Any:
        """The model's config, with `target_vocab`, the number of output ids."""

    @property
    def cache_grows(self) -> bool:
        """Whether the cache grows with the output; a recurrent state has a fixed size."""

    def pack(self, params: Any, precision: str) -> Any:
        """Pack parameters as weights of that precision (decode/weights.py)."""

    def start(self, weights: Any, request: SearchBatch) -> Any:
        """Encode a source, or prefill a prompt, into the steps' context; leaves begin [B]."""

    def init_cache(self, rows: int) -> BeamKVCache:
        """Create the cache of one beam per row, with capacity for no tokens."""

    def extend(self, weights: Any, cache: BeamKVCache, length: int, slots: int) -> BeamKVCache:
        """Extend the cache to `length` tokens of `slots` beams per row."""

    def step(
        self, weights: Any, context: Any, tokens: Array, cache: BeamKVCache, index: Array
    ) -> tuple[Array, BeamKVCache, Array]:
        """Decode the next token of each beam: [B,W] -> hidden states [B,W,D], the cache with this
        token, and the total attention to each input position, [B,W,S].

        `context` is the result of `start`, `index` the number of previous tokens.
        """

    def logits(self, weights: Any, hidden: Array) -> tuple[Array, Array]:
        """Logits [B,W,V or more], and [B,W,UNK + 1] of the first ids from a separate product."""
