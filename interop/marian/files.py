"""Files of a Marian model, and its search settings."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from data.errors import DataError
from data.regular_file import read_regular
from data.yaml_file import MAX_BYTES
from experiments.config import SearchConfig
from experiments.console import log
from interop.fields import name_settings
from interop.marian.settings import Decoder, decoder_settings

_ALWAYS = 12, 0.0  # Marian's beam-size and normalize
_FIREFOX = 1, 1.0
_EXTRA = 256  # most tokens of an output beyond its source's; Marian has a factor in its place


class Folder(NamedTuple):
    """The files of one model."""

    model: Path  # .npz or .bin
    vocabularies: tuple[Path, Path]  # .spm or .yml, of source and target: often one
    file: Path  # the YAML that says how to search, or the model itself
    decoder: Decoder | None  # what is in it
    shortlist: Path | None = None  # of words that outputs may have


def is_native(folder: Path) -> bool:
    """Whether a folder holds models of Marian's own, and none of Hugging Face's."""
    return not os.path.lexists(folder / "config.json") and bool(_models(folder))


def find(folder: Path) -> Folder:
    """The files that its YAML names, or else those that must be meant; raises DataError."""
    named = [file for file in sorted(folder.glob("*.y*ml")) if _names_some(file)]
    configs = {file: found for file in named if (found := decoder_settings(file)) is not None}
    known = folder / "decoder.yml"
    if known in configs:
        configs = {known: configs[known]}
    if len(configs) > 1:
        raise DataError(f"{folder}: several files name models, leave one: {_listed(configs)}")
    for file, decoder in configs.items():
        return _told(folder, file, decoder)
    return _meant(folder)


def _told(folder: Path, file: Path, decoder: Decoder) -> Folder:
    models, vocabularies = decoder.models, decoder.vocabs
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
    return Folder(models[0], (source, target), models[0], None, next(iter(words), None))


def search_settings(found: Folder) -> SearchConfig:
    """Marian's settings of a search as ours; raises DataError, naming the field."""
    file, decoder = found.file, found.decoder
    if decoder is None:
        log(f"{found.model.parent}: no YAML says how to search: greedily, as Firefox does")
        beam, alpha = _FIREFOX
    else:
        beam, alpha = _ALWAYS
        beam = beam if decoder.beam_size is None else decoder.beam_size
        alpha = alpha if decoder.normalize is None else decoder.normalize
    if decoder and decoder.word_penalty:
        raise DataError(f"{file}: word-penalty={decoder.word_penalty} is not supported, only 0")
    try:
        search = SearchConfig(
            beam_size=beam,
            penalty="average" if alpha else "none",
            alpha=float(alpha),
            stopping="full",
            max_length_offset=_EXTRA,
            allow_unknown=bool(decoder and decoder.allow_unk),
        )
    except ValueError as error:
        names = {"beam_size": "beam-size", "alpha": "normalize"}
        raise DataError(f"{file}: {name_settings(error, names)}") from None
    return search


def _names_some(file: Path) -> bool:
    """Whether a file may be the decoder's: without reading all of a large table as YAML."""
    return re.search(rb"^.?models.?\s*:", read_regular(file, MAX_BYTES), re.MULTILINE) is not None


def _shortlist(folder: Path, file: Path, decoder: Decoder) -> Path | None:
    told = decoder.shortlist
    if not told:
        return None
    if not isinstance(told[0], str):
        raise DataError(f"{file}: shortlist must be a list that begins with a file")
    found = folder / Path(told[0]).name
    if not os.path.isfile(found):
        raise DataError(f"{file}: shortlist names {told[0]}, which is not there")
    return found


def _models(folder: Path) -> list[Path]:
    found = [file for kind in ("npz", "bin") for file in sorted(folder.glob(f"*.{kind}"))]
    # A shortlist of words, and PyTorch's own.
    return [file for file in found if not file.name.startswith(("lex", "pytorch_model"))]


def _listed(files: Iterable[Path]) -> str:
    return ", ".join(file.name for file in files)
