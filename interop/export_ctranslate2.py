"""Export to CTranslate2 with its converter of Marian models."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from data.batch import BOS
from experiments.temporary_folders import temporary_folder
from experiments.workdir import LoadedModel
from interop.export_hf_marian import write_marian
from model import ConfigError

_REQUIRED = ("ctranslate2", "torch", "transformers")


def write_ctranslate2(trained: LoadedModel, folder: Path, log: Callable[[str], None]) -> None:
    """Write a run's model; raises ConfigError if a package is missing."""
    missing = [name for name in _REQUIRED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"--to=ctranslate2 needs {missing[0]}: pip install {' '.join(_REQUIRED)}")
    from ctranslate2.converters import TransformersConverter

    if not trained.vocabulary.shared:
        raise ConfigError("--to=ctranslate2: its converter does not support separate vocabularies")
    embedding = "embedding" if trained.model.config.tying == "all" else "target_embedding"
    if np.any(trained.params[embedding]["table"][BOS]):
        raise ConfigError(
            "--to=ctranslate2: its converter assumes that the BOS embedding is zero, as in "
            "OPUS-MT, but this run has trained it"
        )
    with temporary_folder() as marian_folder:
        write_marian(trained, marian_folder, log)
        TransformersConverter(str(marian_folder)).convert(str(folder), force=True)
