"""translations.jsonl: translations of the test split, one line per sentence."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from data.atomic_write import write_atomic
from data.printable import json_line
from decode.hypotheses import Hypothesis
from experiments.console import progress_bar
from experiments.translation_data import open_split, sources_and_references
from experiments.translator import build_translator
from experiments.workdir import load

FILE = "translations.jsonl"


class Translation(msgspec.Struct):
    """The fields of a line of translations.jsonl that are read back."""

    source: str
    reference: str
    hypothesis: str
    score: float


def write_translations(
    workdir: Path,
    checkpoint: int | list[int],
    sources: Sequence[str],
    references: Sequence[str],
    hypotheses: Sequence[Hypothesis],
) -> None:
    """Write each sentence of the test split with its best translation, atomically."""

    def lines() -> Iterator[str]:
        for source, reference, best in zip(sources, references, hypotheses, strict=True):
            row = dict(source=source, reference=reference, hypothesis=best.text, score=best.score)
            yield json_line({"checkpoint": checkpoint} | row) + "\n"

    write_atomic(workdir / FILE, "".join(lines()).encode())


def translate_test_split(workdir: Path) -> None:
    """Translate the test split with the best checkpoint, for a run without translations.jsonl.

    Raises ConfigError, DataError or CheckpointError if files are missing.
    """
    trained = load(workdir)
    sources, references = sources_and_references(open_split(trained.experiment, "test"))
    translator = build_translator(
        trained.experiment, trained.model, trained.params, trained.vocabulary, trained.mesh
    )
    with progress_bar(f"translating for {workdir}", len(sources)) as progress:
        hypotheses = [best for best, *_ in translator.hypotheses(sources, progress)]
    write_translations(workdir, trained.step, sources, references, hypotheses)
