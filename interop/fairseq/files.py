"""Files of a fairseq model: checkpoint, dictionaries, merges, languages."""

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
_MERGES = ("bpe.code", "bpe.codes", "bpecodes", "code", "codes")  # what they are called


class Sides(NamedTuple):
    """Where the words of both sides are, and their languages."""

    languages: tuple[str, str]
    files: tuple[Path, Path]


def is_fairseq(place: Path) -> bool:
    """Whether there are checkpoints in a folder or its checkpoints/, or this is one."""
    return place.is_file() or bool(_checkpoints(place))


def find_checkpoint(place: Path) -> Path:
    """The checkpoint of a folder, the best where it has several; raises DataError."""
    if place.is_file():
        return place
    found = _checkpoints(place)
    best = [file for file in found if file.name == _BEST]
    if len(best or found) != 1:
        raise DataError(
            f"{place}: no {_BEST} says which of these is meant, so name one with --from="
            f"{place / 'FILE'}: {_listed(file.relative_to(place) for file in best or found)}"
        )
    return (best or found)[0]


def places_of(checkpoint: Path) -> list[Path]:
    """The folders in which what goes with a checkpoint may lie."""
    folder = checkpoint.parent
    folders = [folder, folder.parent] if folder.name == "checkpoints" else [folder]
    return [place for each in folders for place in (each, each / "data")]


def find_sides(
    checkpoint: Path, settings: dict[str, Any], source_language: str, target_language: str
) -> Sides:
    """Both dictionaries; the languages are those given, or the settings', or the data's name's.

    Raises DataError where a dictionary is missing, or where it is not clear which is which.
    """
    files: dict[str, Path] = {}
    for place in places_of(checkpoint):
        for file in sorted(place.glob("dict.*.txt")):
            files.setdefault(file.name[len("dict.") : -len(".txt")], file)
    given = source_language, target_language
    told = tuple(settings.get(f"{side}_lang") or "" for side in ("source", "target"))
    languages = tuple(g or t for g, t in zip(given, told, strict=True))
    if not all(languages):
        # As "data-bin/iwslt14.tokenized.de-en".
        data = Path(settings.get("data") or "").name
        pairs = [(a, b) for a in files for b in files if data.endswith(f"{a}-{b}")]
        pairs = [p for p in pairs if all(g in ("", n) for g, n in zip(languages, p, strict=True))]
        if len(pairs) != 1:
            raise DataError(
                f"{checkpoint} does not say which language is the source's: give "
                "--source_language and --target_language, as the dictionaries are named "
                f"({_listed(files.values()) or 'there is no dict.LANGUAGE.txt'})"
            )
        languages = pairs[0]
    for language in languages:
        if language not in files:
            raise DataError(
                f"{checkpoint.parent}: there is no dict.{language}.txt, neither beside the "
                f"checkpoint nor in data/ ({_listed(files.values()) or 'nor any other'})"
            )
    source, target = languages
    return Sides((source, target), (files[source], files[target]))


def read_vocabulary(sides: Sides, merges: Path | None) -> Vocabulary:
    """The words of both sides, one tokenizer where they are the same; raises DataError."""
    cuts = None if merges is None else _text(merges)
    words = [_told(file, read_words, _text(file)) for file in sides.files]
    if merges is not None:
        _told(merges, DictionaryTokenizer.make, (), cuts)
    elif any(word.endswith("@@") for word in words[0]):
        log(f"{sides.files[0]} has subwords, but there are no merges: texts are to be cut already")
    source, target = (DictionaryTokenizer.make(each, cuts) for each in words)
    return Vocabulary(source, source if words[0] == words[1] else target)


def find_merges(checkpoint: Path, settings: dict[str, Any]) -> Path | None:
    """The file of merges, if there is one; raises DataError where there are several, or must be."""
    told = Path(settings.get("bpe_codes") or "").name
    found = [
        place / name
        for place in places_of(checkpoint)
        for name in dict.fromkeys((told, *_MERGES))
        if name and os.path.isfile(place / name)
    ]
    if len(found) > 1:
        raise DataError(
            f"{checkpoint.parent}: several files of merges, leave one: {_listed(found)}"
        )
    if not found and (told or settings.get("bpe")):
        names = told or " or ".join(_MERGES)
        raise DataError(f"{checkpoint} cuts words by merges, but there is no {names} beside it")
    return found[0] if found else None


def _checkpoints(folder: Path) -> list[Path]:
    return [
        file for place in (folder / "checkpoints", folder) for file in sorted(place.glob("*.pt"))
    ]


def _text(file: Path) -> str:
    try:
        return read_regular(file).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8: {error.reason}") from None


def _told(file: Path, function, *arguments):
    """What a function makes of a file's content; its errors name the file."""
    try:
        return function(*arguments)
    except DataError as error:
        raise DataError(f"{file}, {error}") from None


def _listed(files: Iterable[Path]) -> str:
    return ", ".join(map(str, files))
