"""Find and read the files of a fairseq model: checkpoint, dictionaries, merges."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from data.errors import DataError
from data.fairseq_tokenizer import DictionaryTokenizer, read_words
from data.regular_file import read_regular
from data.vocabulary import Vocabulary
from experiments.console import log

_BEST = "checkpoint_best.pt"
_MERGES = ("bpe.code", "bpe.codes", "bpecodes", "code", "codes")  # file names


class Sides(NamedTuple):
    """Dictionaries and languages of both sides."""

    languages: tuple[str, str]
    files: tuple[Path, Path]


def is_fairseq(path: Path) -> bool:
    """Whether a path is a checkpoint, or a folder with checkpoints (or in its checkpoints/)."""
    return path.is_file() or bool(_checkpoints(path))


def find_checkpoint(path: Path) -> Path:
    """Find the checkpoint of a folder, the best if it has several; raises DataError."""
    if path.is_file():
        return path
    checkpoints = _checkpoints(path)
    best = [file for file in checkpoints if file.name == _BEST]
    if len(best or checkpoints) != 1:
        raise DataError(
            f"{path}: there are several checkpoints and no {_BEST}, so choose one with --from="
            f"{path / 'FILE'}: {_listed(file.relative_to(path) for file in best or checkpoints)}"
        )
    return (best or checkpoints)[0]


def search_folders(checkpoint: Path) -> list[Path]:
    """Folders that may contain the other files of a checkpoint."""
    folder = checkpoint.parent
    folders = [folder, folder.parent] if folder.name == "checkpoints" else [folder]
    return [path for parent in folders for path in (parent, parent / "data")]


def find_sides(
    checkpoint: Path, settings: dict[str, Any], source_language: str, target_language: str
) -> Sides:
    """Find both dictionaries; languages not given come from the settings or the data folder's name.

    Raises DataError if a dictionary is missing, or if the languages are ambiguous.
    """
    files: dict[str, Path] = {}
    for folder in search_folders(checkpoint):
        for file in sorted(folder.glob("dict.*.txt")):
            files.setdefault(file.name[len("dict.") : -len(".txt")], file)
    requested = source_language, target_language
    configured = tuple(settings.get(f"{side}_lang") or "" for side in ("source", "target"))
    languages = tuple(r or c for r, c in zip(requested, configured, strict=True))
    if not all(languages):
        # For example, "data-bin/iwslt14.tokenized.de-en".
        data = Path(settings.get("data") or "").name
        pairs = [(a, b) for a in files for b in files if data.endswith(f"{a}-{b}")]
        pairs = [p for p in pairs if all(k in ("", n) for k, n in zip(languages, p, strict=True))]
        if len(pairs) != 1:
            raise DataError(
                f"{checkpoint} does not name the source and target languages: give "
                "--source_language and --target_language as in the dictionaries' names "
                f"({_listed(files.values()) or 'no dict.LANGUAGE.txt'})"
            )
        languages = pairs[0]
    for language in languages:
        if language not in files:
            raise DataError(
                f"{checkpoint.parent}: found no dict.{language}.txt beside the checkpoint "
                f"or in data/ ({_listed(files.values()) or 'nor any other'})"
            )
    source, target = languages
    return Sides((source, target), (files[source], files[target]))


def read_vocabulary(sides: Sides, merges: Path | None) -> Vocabulary:
    """Read the vocabulary of both sides, shared if they are equal; raises DataError."""
    merges_text = None if merges is None else _text(merges)
    words = [_name_file_in_errors(file, read_words, _text(file)) for file in sides.files]
    if merges is not None:
        _name_file_in_errors(merges, DictionaryTokenizer.make, (), merges_text)
    elif any(word.endswith("@@") for word in words[0]):
        log(
            f"{sides.files[0]} has subwords, but there are no merges: input texts must be split "
            "into subwords"
        )
    source, target = (DictionaryTokenizer.make(side, merges_text) for side in words)
    return Vocabulary(source, source if words[0] == words[1] else target)


def find_merges(checkpoint: Path, settings: dict[str, Any]) -> Path | None:
    """Find the file of merges, if any; raises DataError if it is ambiguous or missing."""
    configured = Path(settings.get("bpe_codes") or "").name
    merges = [
        folder / name
        for folder in search_folders(checkpoint)
        for name in dict.fromkeys((configured, *_MERGES))
        if name and os.path.isfile(folder / name)
    ]
    if len(merges) > 1:
        raise DataError(
            f"{checkpoint.parent}: several files of merges, keep one: {_listed(merges)}"
        )
    if not merges and (configured or settings.get("bpe")):
        names = configured or " or ".join(_MERGES)
        raise DataError(
            f"{checkpoint} needs merges to split words, but there is no {names} beside it"
        )
    return merges[0] if merges else None


def _checkpoints(folder: Path) -> list[Path]:
    return [
        file for parent in (folder / "checkpoints", folder) for file in sorted(parent.glob("*.pt"))
    ]


def _text(file: Path) -> str:
    try:
        return read_regular(file).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8: {error.reason}") from None


def _name_file_in_errors(file: Path, function, *arguments):
    """Call `function`; its DataErrors name the file."""
    try:
        return function(*arguments)
    except DataError as error:
        raise DataError(f"{file}, {error}") from None


def _listed(files: Iterable[Path]) -> str:
    return ", ".join(map(str, files))
