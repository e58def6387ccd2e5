"""A split of the demo corpus: the sentence at each index."""

import hashlib
import operator
from pathlib import Path

from data.demo.kinds import KINDS
from data.demo.permutation import Permutation
from data.errors import DataError
from data.pairs import Pair

SIZES = {"train": 200_000, "valid": 1_000, "test": 1_000}
# Every round of the corpus, sum-of-shares sentences long, gives each kind its share.
ROUND = tuple((name, turn) for name, kind in KINDS.items() for turn in range(kind.share))


class Demo:
    """A split of the demo corpus as a `Corpus` of pairs; each seed gives a different corpus.

    Splits of the same seed share no sentence; those of different seeds may.
    """

    def __init__(
        self,
        split: str,
        seed: int = 0,
        source_language: str = "en",
        target_language: str = "de",
    ) -> None:
        """Open a split; raise DataError for an unknown split or language pair."""
        if split not in SIZES:
            raise DataError(f"demo has no split {split!r}: choose one of {', '.join(SIZES)}")
        languages = (source_language, target_language)
        if languages not in (("en", "de"), ("de", "en")):
            raise DataError(
                f"demo cannot translate {source_language!r} to {target_language!r}: "
                "choose en and de, or de and en"
            )
        self.seed, self.reverse = seed, languages == ("de", "en")
        self.size = SIZES[split]
        self.start = sum(SIZES[name] for name in list(SIZES)[: list(SIZES).index(split)])
        self.order = Permutation(len(ROUND), f"{seed}/order")
        self.permutations = {
            name: Permutation(kind.count, f"{seed}/{name}") for name, kind in KINDS.items()
        }

    def __len__(self) -> int:
        return self.size

    def digest(self) -> str:
        """Return a digest of the grammar's source and the settings: it changes with either."""
        checksum = hashlib.sha256(repr((self.start, self.size, self.seed, self.reverse)).encode())
        for file in sorted(Path(__file__).parent.glob("*.py")):
            checksum.update(file.read_bytes())
        return checksum.hexdigest()

    def __getitem__(self, index: int) -> Pair:
        index = operator.index(index)
        if not 0 <= index < self.size:
            raise IndexError(f"demo pair {index} is not in 0 to {self.size - 1}")
        turn, position = divmod(self.start + index, len(ROUND))
        # Shifted in each round; otherwise every other sentence would show only half of the kinds.
        name, offset = ROUND[self.order((position + turn) % len(ROUND))]
        kind = KINDS[name]
        sentences = kind.sentence(self.permutations[name](turn * kind.share + offset))
        return Pair(*sentences[:: -1 if self.reverse else 1])
