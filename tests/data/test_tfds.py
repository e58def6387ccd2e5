"""TFDS datasets as corpora, and one-line errors with a remedy."""

import importlib.util
import sys

import pytest

from data.corpus import open_corpus
from tests.data.corpus_files import PAIRS, failure


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    import tensorflow_datasets as tfds

    class ToyTranslate(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="de-en")]

        def _info(self):
            features = tfds.features.Translation(languages=("de", "en"))
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, _):
            return {"train": self._generate_examples(), "dev": self._generate_examples(1)}

        def _generate_examples(self, start=0):
            for i, (english, german) in enumerate(PAIRS[start:]):
                yield i, {"en": english, "de": german}

    folder = tmp_path_factory.mktemp("tfds")
    ToyTranslate(config="de-en", data_dir=folder, file_format="array_record").download_and_prepare()
    return str(folder)


def test_a_tfds_set_in_either_direction_without_tensorflow(tfds_folder):
    name = "toy_translate/de-en"
    source = open_corpus(name, "train", path=tfds_folder)
    assert [source[i] for i in range(len(source))] == PAIRS
    for index in (-1, len(PAIRS)):
        with pytest.raises(IndexError):
            source[index]
    languages = dict(source_language="de", target_language="en")
    assert open_corpus(name, "valid", path=tfds_folder, **languages)[0] == PAIRS[1][::-1]
    assert "tensorflow" not in sys.modules


def test_a_missing_split_language_or_set_is_named(tfds_folder):
    name = "toy_translate/de-en"
    assert (
        failure(name, tfds_folder, "test") == f"TFDS set {name} has no test split, only: train, dev"
    )
    assert "has no 'fr', only: de, en" in failure(name, tfds_folder, source_language="fr")
    assert failure("toy_translat/de-en", tfds_folder).startswith(
        "TFDS has no set 'toy_translat/de-"
    )


def test_a_tfds_set_that_cannot_be_prepared_here(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def no_network(*_, **__):
        raise OSError("no route to host\nat all")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", no_network)
    # Without TensorFlow there is no attempt; with it, the message has the reason.
    find_spec = importlib.util.find_spec
    for spec, reason in (
        (None, "is not prepared in"),
        ("installed", "cannot be prepared here (no route"),
    ):
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *rest, spec=spec: spec if name == "tensorflow" else find_spec(name, *rest),
        )
        message = failure("wmt14_translate/de-en", tmp_path)
        assert message.startswith(f"TFDS set wmt14_translate/de-en {reason}")
        assert "\n" not in message and "download_and_prepare()" in message
    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    for name in ("wmt14_translate/de-en", "ted_hrlr_translate/pt_to_en"):
        message = failure(name, tmp_path)
        assert message.startswith(f"TFDS set {name} ")
        assert f"builder('{name}'" in message and "--config.data.path" in message
