"""Fixtures: text of two toy languages, a tiny run trained on it, and a Marian folder."""

import importlib
import sys

import numpy as np
import pytest
from absl import flags

from tests.experiments.commands import WORDS, heed, train_args
from tests.experiments.marian_folders import save_folder
from tests.experiments.serving import small_searches


@pytest.fixture
def benchmark_main():
    """Imports a benchmark's main and removes its flags after the test: some share names."""
    imported = []

    def load(name):
        imported.append(importlib.import_module(f"benchmarks.{name}"))
        return imported[-1]

    yield load
    for module in imported:
        for flag in flags.FLAGS.get_flags_for_module(module.__name__):
            delattr(flags.FLAGS, flag.name)
        del sys.modules[module.__name__]


@pytest.fixture(scope="session")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    for split, count in ("train", 120), ("valid", 6), ("test", 6):
        rows = [rng.choice(list(WORDS), rng.integers(2, 6)) for _ in range(count)]
        for language, words in ("en", dict(zip(WORDS, WORDS, strict=True))), ("de", WORDS):
            lines = "".join(" ".join(words[w] for w in row) + "\n" for row in rows)
            (folder / f"{split}.{language}").write_text(lines)
    return folder


@pytest.fixture(scope="session")
def run(text, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "small"
    code, out, err = heed("train", *train_args(text, workdir))
    assert code == 0, err
    return workdir, out, err


@pytest.fixture(scope="session")
def marian(tmp_path_factory):
    """A tiny Hugging Face Marian folder with random weights."""
    folder = tmp_path_factory.mktemp("marian")
    save_folder(folder)
    return folder


@pytest.fixture(scope="session")
def searches(run):
    workdir, *_ = run
    compiled = small_searches(workdir)
    compiled.precompile()
    return compiled
