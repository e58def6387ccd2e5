"""What there is in a folder of Marian's own, and how Marian would search by it."""

import re
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from data.corpus import DataError
from decode.options import SearchOptions
from experiments.config import SearchConfig
from experiments.console import note
from experiments.importing.fields import read_bytes
from experiments.importing.items import read_yaml

_FIREFOX = {"beam-size": 1, "normalize": 1.0}
_EXTRA = 256  # most tokens of an output beyond its source's; Marian has a factor in its place


class Folder(NamedTuple):
    """The files of one model."""

    model: Path  # .npz or .bin
    vocabularies: tuple[Path, Path]  # .spm or .yml, of source and target: often one
    file: Path  # the YAML that says how to search, or the model itself
    decoder: dict[str, Any]  # what is in it
    shortlist: Path | None = None  # of words that outputs may have


def is_native(folder: Path) -> bool:
    """Whether a folder holds models of Marian's own, and none of Hugging Face's."""
    return not (folder / "config.json").exists() and bool(_models(folder))


def find(folder: Path) -> Folder:
    """The files that its YAML names, or else those that must be meant; raises DataError."""
    configs = {file: read_yaml(file) for file in sorted(folder.glob("*.y*ml")) if _names_some(file)}
    # A table of words may have these words, too: their values are numbers.
    configs = {
        file: each
        for file, each in configs.items()
        if not {int, type(None)} & {type(each.get(key)) for key in ("models", "vocabs")}
    }
    known = folder / "decoder.yml"
    if known in configs:
        configs = {known: configs[known]}
    if len(configs) > 1:
        raise DataError(f"{folder}: several files name models, leave one: {_listed(configs)}")
    for file, decoder in configs.items():
        return _told(folder, file, decoder)
    return _meant(folder)


def _told(folder: Path, file: Path, decoder: dict[str, Any]) -> Folder:
    models, vocabularies = (_names(file, decoder, key) for key in ("models", "vocabs"))
    if len(models) != 1:
        raise DataError(f"{file}: models names {len(models)}, an ensemble: leave one")
    if len(vocabularies) != 2:
        raise DataError(f"{file}: vocabs names {len(vocabularies)}, not the two sides'")
    # What paths are relative to is one more setting there: here all lie beside each other.
    model, source, target = (folder / Path(name).name for name in (*models, *vocabularies))
    return Folder(model, (source, target), file, decoder, _shortlist(folder, file, decoder))


def _meant(folder: Path) -> Folder:
    models, words = _models(folder), sorted(folder.glob("lex*.bin"))
    for files, least in (models, 1), (words, 0):
        if not least <= len(files) <= 1:
            listed = _listed(files)
            raise DataError(f"{folder}: no YAML file says which of these is meant: {listed}")
    pieces = sorted(folder.glob("*.spm"))
    sides = [
        [file for file in pieces if file.name.startswith(begin)]
        for begin in (("src", "source"), ("trg", "tgt", "target"))
    ]
    if len(pieces) == 1:
        sides = [pieces, pieces]
    if len(pieces) not in (1, 2) or [*map(len, sides)] != [1, 1]:
        raise DataError(
            f"{folder}: no YAML file says which .spm is the source's and which the target's; named "
            f"src.. and trg.. they need none: {_listed(pieces) or 'there is none'}"
        )
    ((source,), (target,)) = sides
    return Folder(models[0], (source, target), models[0], {}, next(iter(words), None))


def search_settings(found: Folder) -> SearchConfig:
    """Marian's settings of a search as ours; raises DataError, naming the field."""
    file, decoder = found.file, found.decoder
    if not decoder:
        note(f"{found.model.parent}: no YAML says how to search: greedily, as Firefox does")
        decoder = _FIREFOX
    if decoder.get("word-penalty"):
        raise DataError(f"{file}: word-penalty={decoder['word-penalty']} is not supported, only 0")
    try:
        alpha = float(decoder.get("normalize", 0))
        search = SearchConfig(
            beam_size=int(decoder.get("beam-size", 12)),
            penalty="average" if alpha else "none",
            alpha=alpha,
            stopping="first",
            extra_length=_EXTRA,
            allow_unknown=bool(decoder.get("allow-unk")),
        )
        SearchOptions(**asdict(search))
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{file}: beam-size or normalize cannot be: {error}") from None
    return search


def _names_some(file: Path) -> bool:
    """Whether a file may be the decoder's: without reading all of a large table as YAML."""
    return re.search(rb"^.?models.?\s*:", read_bytes(file), re.MULTILINE) is not None


def _shortlist(folder: Path, file: Path, decoder: dict[str, Any]) -> Path | None:
    told = decoder.get("shortlist")
    if not told:
        return None
    if not isinstance(told, list) or not isinstance(told[0], str):
        raise DataError(f"{file}: shortlist must be a list that begins with a file")
    found = folder / Path(told[0]).name
    if not found.is_file():
        raise DataError(f"{file}: shortlist names {told[0]}, which is not there")
    return found


def _models(folder: Path) -> list[Path]:
    found = [file for kind in ("npz", "bin") for file in sorted(folder.glob(f"*.{kind}"))]
    # A shortlist of words, and PyTorch's own.
    return [file for file in found if not file.name.startswith(("lex", "pytorch_model"))]


def _names(file: Path, settings: dict[str, Any], key: str) -> list[str]:
    found = settings.get(key)
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise DataError(f"{file}: {key} must be a list of files")
    return found


def _listed(files: Iterable[Path]) -> str:
    return ", ".join(file.name for file in files)
