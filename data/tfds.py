"""TFDS translation datasets, read without TensorFlow if stored as array records."""

import importlib
import importlib.util
from collections.abc import Sequence

from data.errors import DataError
from data.pairs import Pair

_SPLITS = {"train": ("train",), "valid": ("validation", "valid", "dev"), "test": ("test",)}


class _Records:
    def __init__(self, records: Sequence[dict], languages: tuple[str, str]):
        self._records, self._languages = records, languages

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Pair:
        if not 0 <= index < len(self._records):
            raise IndexError(index)
        record = self._records[index]
        return Pair(*(record[language].decode().replace("\n", " ") for language in self._languages))


def read(name: str, split: str, folder: str, languages: tuple[str, str]) -> _Records:
    """Open a split of a TFDS dataset such as "wmt14_translate/de-en", in either direction.

    The dataset is prepared first if necessary. Raises DataError, with a remedy, if that fails.
    """
    import tensorflow_datasets as tfds  # slow to import, and only needed here

    module = "tensorflow_datasets"
    try:  # older builders register themselves only when their module is imported
        base = name.split("/")[0].removesuffix("_translate")
        module = importlib.import_module(f"tensorflow_datasets.translate.{base}").__name__
    except ImportError:
        pass
    options = {"data_dir": folder} if folder else {}
    remedy = (
        f'prepare it once on a machine with TensorFlow and a network: python -c "import {module}; '
        f"tensorflow_datasets.builder('{name}', file_format='array_record', data_dir='DIR')"
        '.download_and_prepare()", and then pass --config.data.path=DIR'
    )
    try:
        builder = tfds.builder(name, file_format="array_record", **options)
    except Exception:  # the dataset may exist only as files
        try:
            builder = tfds.builder(name, **options)
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise DataError(f"TFDS has no set {name!r}: {reason}") from None
    if not builder.data_path.exists() and importlib.util.find_spec("tensorflow") is None:
        # TFDS needs TensorFlow to unpack archives, and would first download for minutes.
        prepared_path = builder.data_path
        raise DataError(
            f"TFDS set {name} is not prepared in {prepared_path}, and cannot be prepared here; "
            + remedy
        )
    try:
        builder.download_and_prepare()  # does nothing if it is prepared
    except Exception as error:  # no network, no TensorFlow, no disk space: many types
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DataError(f"TFDS set {name} cannot be prepared here ({reason}); {remedy}") from None
    features = builder.info.features
    missing = [language for language in languages if language not in features]
    if missing:
        raise DataError(f"TFDS set {name} has no {missing[0]!r}, only: {', '.join(features)}")
    for candidate in _SPLITS[split]:
        if candidate in builder.info.splits:
            break
    else:
        splits = ", ".join(builder.info.splits)
        raise DataError(f"TFDS set {name} has no {split} split, only: {splits}")
    try:
        return _Records(builder.as_data_source(split=candidate), languages)
    except NotImplementedError:
        raise DataError(
            f"TFDS set {name} is not stored as array records, the format with random access; "
            + remedy
        ) from None
