"""What there is in a folder of Marian's own, and how Marian would search by it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from data.corpus import DataError
from experiments.config import SearchConfig
from experiments.importing.items import read_yaml

_EXTRA = 256  # most tokens of an output beyond its source's; Marian has a factor in its place


class Folder(NamedTuple):
    """The files of one model."""

    model: Path  # .npz or .bin
    vocabularies: tuple[Path, Path]  # .spm or .yml, of source and target: often one
    file: Path  # the YAML that says how to search, or the model itself
    decoder: dict[str, Any]  # what is in it


def is_native(folder: Path) -> bool:
    """Whether a folder holds models of Marian's own, and none of Hugging Face's."""
    return not (folder / "config.json").exists() and bool(_models(folder))


def find(folder: Path) -> Folder:
    """The files that its YAML names, or else those that must be meant; raises DataError."""
    configs = {file: read_yaml(file) for file in sorted(folder.glob("*.y*ml"))}
    configs = {file: each for file, each in configs.items() if "models" in each}
    known = folder / "decoder.yml"
    if known in configs:
        configs = {known: configs[known]}
    if len(configs) > 1:
        raise DataError(f"{folder}: several files name models, leave one: {_listed(configs)}")
    for file, decoder in configs.items():
        models, vocabularies = (_names(file, decoder, key) for key in ("models", "vocabs"))
        if len(models) != 1:
            raise DataError(f"{file}: models names {len(models)}, an ensemble: leave one")
        if len(vocabularies) != 2:
            raise DataError(f"{file}: vocabs names {len(vocabularies)}, not the two sides'")
        # What paths are relative to is one more setting there: here all lie beside each other.
        model, source, target = (folder / Path(name).name for name in (*models, *vocabularies))
        return Folder(model, (source, target), file, decoder)
    models = _models(folder)
    if len(models) != 1:
        raise DataError(f"{folder}: no YAML file says which of these is meant: {_listed(models)}")
    pieces = sorted(folder.glob("*.spm"), key=lambda file: (not _of_source(file), file))
    if len(pieces) not in (1, 2):
        raise DataError(f"{folder}: there are {len(pieces)} .spm files and no YAML that names some")
    return Folder(models[0], (pieces[0], pieces[-1]), models[0], {})


def search_settings(found: Folder) -> SearchConfig:
    """Marian's settings of a search as ours; raises DataError, naming the field."""
    file, decoder = found.file, found.decoder
    if decoder.get("word-penalty"):
        raise DataError(f"{file}: word-penalty={decoder['word-penalty']} is not supported, only 0")
    try:
        beam, alpha = int(decoder.get("beam-size", 12)), float(decoder.get("normalize", 0))
    except (TypeError, ValueError):
        raise DataError(f"{file}: beam-size and normalize must be numbers") from None
    return SearchConfig(
        beam_size=beam,
        penalty="average" if alpha else "none",
        alpha=alpha,
        stopping="first",
        extra_length=_EXTRA,
        allow_unknown=bool(decoder.get("allow-unk")),
    )


def _models(folder: Path) -> list[Path]:
    found = [file for kind in ("npz", "bin") for file in sorted(folder.glob(f"*.{kind}"))]
    # A shortlist of words, and PyTorch's own.
    return [file for file in found if not file.name.startswith(("lex", "pytorch_model"))]


def _of_source(file: Path) -> bool:
    return file.name.startswith("s")  # srcvocab.deen.spm, source.spm


def _names(file: Path, settings: dict[str, Any], key: str) -> list[str]:
    found = settings.get(key)
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise DataError(f"{file}: {key} must be a list of files")
    return found


def _listed(files: Iterable[Path]) -> str:
    return ", ".join(file.name for file in files)
