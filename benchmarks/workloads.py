"""Decoding workloads: random sources, exact output lengths, a random base model."""

from dataclasses import dataclass, replace

import numpy as np

from model.config import BASE, TransformerConfig

FIRST_WORD, VOCABULARY = 4, 32_000


@dataclass(frozen=True)
class Workload:
    """Sources (ids without EOS), output lengths, and the settings of the search."""

    sources: list[list[int]]
    lengths: list[int]
    beam_size: int
    one_by_one: bool = False

    @property
    def tokens(self) -> int:
        """Output tokens, EOS included."""
        return sum(self.lengths)

    @property
    def mixed(self) -> bool:
        """Whether lengths differ."""
        return len(set(self.lengths)) > 1

    def groups(self, batch: int) -> list[list[int]]:
        """Indices of the sources of each search: all, one by one, or, for mixed lengths, groups of
        `batch` sources of similar length, longest first.
        """
        order = sorted(range(len(self.sources)), key=lambda row: -len(self.sources[row]))
        size = 1 if self.one_by_one else batch if self.mixed else len(order)
        return [order[start : start + size] for start in range(0, len(order), size)]


def workload(name: str, config: TransformerConfig) -> Workload:
    """W1 to W4; the same for every system."""
    rng = np.random.default_rng(0)

    def sources(lengths):
        return [rng.integers(FIRST_WORD, config.vocab_size, n).tolist() for n in lengths]

    if name == "W1":
        return Workload(sources([30] * 64), [40] * 64, 4)
    if name == "W2":
        return Workload(sources([30] * 64), [40] * 64, 1)
    if name == "W3":
        return Workload(sources([30] * 20), [40] * 20, 4, one_by_one=True)
    lengths = rng.integers(5, 81, 200).tolist()
    return Workload(sources(lengths), lengths, 4)


def base() -> TransformerConfig:
    """The paper's base model over 32,000 words."""
    return replace(BASE, vocab_size=VOCABULARY, dropout=0.0)
