"""Find the files of a Marian model, and read its search settings."""

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

_DEFAULTS = 12, 0.0  # Marian's default beam-size and normalize
_FIREFOX = 1, 1.0
_EXTRA = 256  # maximum of output tokens minus source tokens; Marian has a factor instead


class Folder(NamedTuple):
    """The files of one model."""

    model: Path  # .npz or .bin
    vocabularies: tuple[Path, Path]  # .spm or .yml, of source and target; often the same
    file: Path  # the YAML file with search settings, or the model
    decoder: Decoder | None  # content of the YAML file
    shortlist: Path | None = None  # of output words


def is_native(folder: Path) -> bool:
    """Whether a folder has native Marian models and no Hugging Face model."""
    return not os.path.lexists(folder / "config.json") and bool(_models(folder))


def find_files(folder: Path) -> Folder:
    """Find a model's files, named in its YAML file or by convention; raises DataError."""
    candidates = [file for file in sorted(folder.glob("*.y*ml")) if _has_models(file)]
    configs = {
        file: settings for file in candidates if (settings := decoder_settings(file)) is not None
    }
    default = folder / "decoder.yml"
    if default in configs:
        configs = {default: configs[default]}
    if len(configs) > 1:
        raise DataError(f"{folder}: several files name models, keep one: {_listed(configs)}")
    for file, decoder in configs.items():
        return _configured(folder, file, decoder)
    return _inferred(folder)


def _configured(folder: Path, file: Path, decoder: Decoder) -> Folder:
    models, vocabularies = decoder.models, decoder.vocabs
    if len(models) != 1:
        raise DataError(f"{file}: models names {len(models)}, an ensemble: keep one")
    if len(vocabularies) != 2:
        raise DataError(f"{file}: vocabs names {len(vocabularies)}, but must name two")
    # Marian resolves paths relative to a setting; Heed expects all files in one folder.
    model, source, target = (folder / Path(name).name for name in (*models, *vocabularies))
    return Folder(model, (source, target), file, decoder, _shortlist(folder, file, decoder))


def _inferred(folder: Path) -> Folder:
    models, shortlists = _models(folder), sorted(folder.glob("lex*.bin"))
    for files, minimum in (models, 1), (shortlists, 0):
        if not minimum <= len(files) <= 1:
            listed = _listed(files)
            raise DataError(f"{folder}: no YAML file selects one of these: {listed}")
    spm_files = sorted(folder.glob("*.spm"))
    sides = [
        [file for file in spm_files if file.name.startswith(prefixes)]
        for prefixes in (("src", "source"), ("trg", "tgt", "target"))
    ]
    if len(spm_files) == 1:
        sides = [spm_files, spm_files]
    if len(spm_files) not in (1, 2) or [*map(len, sides)] != [1, 1]:
        raise DataError(
            f"{folder}: no YAML file names the .spm of source and target; alternatively, name them "
            f"src.. and trg..: {_listed(spm_files) or 'there is none'}"
        )
    ((source,), (target,)) = sides
    return Folder(models[0], (source, target), models[0], None, next(iter(shortlists), None))


def search_settings(files: Folder) -> SearchConfig:
    """Convert Marian's search settings to a SearchConfig; raises DataError, naming the field."""
    file, decoder = files.file, files.decoder
    if decoder is None:
        log(
            f"{files.model.parent}: no YAML file has search settings: using greedy search, as "
            "Firefox does"
        )
        beam, alpha = _FIREFOX
    else:
        beam, alpha = _DEFAULTS
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


def _has_models(file: Path) -> bool:
    """Whether a file may be a decoder config, without parsing a large table as YAML."""
    return re.search(rb"^.?models.?\s*:", read_regular(file, MAX_BYTES), re.MULTILINE) is not None


def _shortlist(folder: Path, file: Path, decoder: Decoder) -> Path | None:
    value = decoder.shortlist
    if not value:
        return None
    if not isinstance(value[0], str):
        raise DataError(f"{file}: shortlist must be a list that starts with a file name")
    path = folder / Path(value[0]).name
    if not os.path.isfile(path):
        raise DataError(f"{file}: shortlist names {value[0]}, which does not exist")
    return path


def _models(folder: Path) -> list[Path]:
    files = [file for suffix in ("npz", "bin") for file in sorted(folder.glob(f"*.{suffix}"))]
    # Exclude shortlists and PyTorch's weights.
    return [file for file in files if not file.name.startswith(("lex", "pytorch_model"))]


def _listed(files: Iterable[Path]) -> str:
    return ", ".join(file.name for file in files)
