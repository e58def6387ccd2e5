"""Importers of Hugging Face folders by `model_type`."""

import reprlib
from collections.abc import Callable
from pathlib import Path

from data.errors import DataError
from interop.bart import VARIANTS, read_bart
from interop.config_json import family
from interop.hf_marian import read_marian
from interop.imported_model import ImportedModel
from interop.t5 import read_t5

READERS: dict[str, Callable[[Path, str, str], ImportedModel]] = {
    "marian": read_marian,
    "t5": read_t5,
    "mt5": read_t5,
    **dict.fromkeys(VARIANTS, read_bart),
}


def read_folder(
    folder: Path, source_language: str = "", target_language: str = ""
) -> ImportedModel:
    """Import a folder's model; raises DataError if its `model_type` is not supported."""
    file = folder / "config.json"
    model_type = family(file)
    if model_type not in READERS:
        choices = ", ".join(sorted(READERS))
        raise DataError(
            f"{file}: model_type={reprlib.repr(model_type)} is not supported, only {choices}"
        )
    return READERS[model_type](folder, source_language, target_language)
