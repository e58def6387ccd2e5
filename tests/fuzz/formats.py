"""Every format that Heed reads: how to write a small valid file, mutate it and read it."""

import gzip
import json
import shutil
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from data import text
from data.fairseq_tokenizer import DictionaryTokenizer
from data.hf_tokenizer import FastTokenizer
from data.vocabulary import Vocabulary
from decode import shortlist
from experiments import workdir
from experiments.config import DataConfig, Experiment
from experiments.report.record import read_run
from interop import imported_model
from interop.fairseq.model import read_fairseq
from interop.marian.model import read_native
from interop.registry import read_folder
from interop.tensor_files import read_tensors
from model import TransformerConfig
from tests.experiments import (
    bart_folders,
    fairseq_folders,
    marian_folders,
    native_folders,
    t5_folders,
)
from tests.fuzz import mutations
from tests.fuzz.legacy import save_legacy
from train.checkpoint_items import metrics


class Format(NamedTuple):
    """A file format, with the folder that contains the file."""

    folder: str  # a key of FOLDERS
    file: str  # the file to mutate
    mutate: Callable[[Random, bytes], bytes]  # in addition to random bytes
    read: Callable[[Path], Any]  # reads the folder; rejects it with a user error


def _native(folder: Path) -> None:
    native_folders.save_folder(folder, decoder={"shortlist": ["lex.bin", 50, 50]})
    native_folders.save_shortlist(folder / "lex.bin")


def _npz(folder: Path) -> None:
    native_folders.save_folder(folder, decoder={"models": ["model.npz"]})
    items = native_folders.random_items(native_folders.PLAIN)
    native_folders.save_npz(folder / "model.npz", items, native_folders.PLAIN)
    (folder / "model.ende.bin").unlink()


def _table(folder: Path) -> None:
    native_folders.save_folder(folder, decoder={"vocabs": ["vocab.yml"] * 2})
    model = folder / "vocab.ende.spm"
    (folder / "source.spm").write_bytes(model.read_bytes())
    model.rename(folder / "target.spm")
    words = ["</s>", "<unk>", *(f"w{n}" for n in range(native_folders.SIZE - 2))]
    (folder / "vocab.yml").write_text("".join(f'"{w}": {n}\n' for n, w in enumerate(words)))


def _legacy(folder: Path) -> None:
    settings, arrays = fairseq_folders.save_folder(folder)
    file = folder / "checkpoints" / "checkpoint_best.pt"
    save_legacy(file, fairseq_folders.content(settings, arrays))


def _pickled(folder: Path) -> None:
    folder.mkdir()
    arrays = {name: np.arange(6, dtype=np.float32).reshape(2, 3) for name in "abc"}
    content = {name: fairseq_folders.Tensor(x) for name, x in arrays.items()}
    fairseq_folders.save_checkpoint(folder / "pytorch_model.bin", content)


def _sharded(folder: Path) -> None:
    from safetensors.numpy import save_file

    folder.mkdir()
    save_file({"a": np.zeros((2, 3), np.float32)}, folder / "one.safetensors")
    index = {"metadata": {"total_size": 24}, "weight_map": {"a": "one.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _run(folder: Path) -> None:
    (folder / "checkpoints" / "3" / "metrics").mkdir(parents=True)
    (folder / "checkpoints" / "3" / "metrics" / "metrics").write_text('{"bleu": 1.5, "loss": 2}')
    model = TransformerConfig(vocab_size=90, d_model=16, d_ff=24, num_heads=2)
    workdir.write_config(folder, Experiment(model=model, data=DataConfig(vocab_size=90)))
    model_bytes = marian_folders.train_spm(marian_folders.lines(100)[0], 90, "bpe")
    (folder / "tokenizer.model").write_bytes(model_bytes)
    events = [
        {"event": "train", "step": step, "loss": 1.5, "tokens_per_second": 10.0, "time": 2.5}
        for step in (1, 2, 3)
    ]
    starts = [{"date": "2026-01-01T00:00:00", "commit": None, "packages": {"jax": "0"}}]
    texts = [{"source": "a", "reference": "b", "hypothesis": "c", "score": -1.0, "checkpoint": 3}]
    for name, rows in ("metrics", events), ("environment", starts), ("translations", texts):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines)
    ids = np.array([5, 6, 7], np.int32)
    starts_of = np.arange(4, dtype=np.int64)
    shortlist.Shortlist(starts_of, ids, ids[:1], 90).save(folder)


def _dictionary(folder: Path) -> None:
    folder.mkdir()
    DictionaryTokenizer.make(["a", "b@@", "c"], fairseq_folders.MERGES).save(
        folder / "tokenizer.model"
    )


def _marian_model(folder: Path) -> None:
    imported = folder.parent / "imported"
    marian_folders.save_folder(imported)
    folder.mkdir()
    read_folder(imported).vocabulary.source.save(folder / "tokenizer.model")
    shutil.rmtree(imported)


def _fast(folder: Path) -> None:
    library = bart_folders.save_folder(folder.parent / "imported")
    folder.mkdir()
    order = [1, 2, 2, 3, *range(4, library.get_vocab_size())]
    FastTokenizer.make(library.to_str(), order, ()).save(folder / "tokenizer.model")
    shutil.rmtree(folder.parent / "imported")


def _text(folder: Path) -> None:
    folder.mkdir()
    lines = "one\nzwei\n\u4e09\n" * 5
    for name in "train.en", "train.de":
        (folder / name).write_text(lines)
    (folder / "valid.en.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "train.tsv").write_text("en\tde\n" + "one\tzwei\n" * 5)
    (folder / "train.jsonl").write_text('{"translation": {"en": "a", "de": "b"}}\n' * 3)


FOLDERS: dict[str, Callable[[Path], Any]] = {
    "native": _native,
    "native npz": _npz,
    "native table": _table,
    "fairseq": fairseq_folders.save_folder,
    "fairseq legacy": _legacy,
    "pickled": _pickled,
    "sharded": _sharded,
    "marian": marian_folders.save_folder,
    "bart": bart_folders.save_folder,
    "t5": t5_folders.save_folder,
    "run": _run,
    "dictionary": _dictionary,
    "marian model": _marian_model,
    "fast": _fast,
    "text": _text,
}


def _import(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """An importer with cached parameter shapes, so that a case only costs parsing."""

    def read_cached(folder: Path) -> Any:
        original, imported_model.param_shapes = imported_model.param_shapes, _shapes
        try:
            return _use(read(folder).vocabulary)
        finally:
            imported_model.param_shapes = original

    return read_cached


_shapes = lru_cache(8)(imported_model.param_shapes)


def _use(vocabulary: Vocabulary) -> None:
    for side in vocabulary:
        ids = side.encode(["a cat </s> \u4e09", ""])
        side.decode(ids)
        side.pieces(ids[0])


def _load(folder: Path) -> None:
    _use(Vocabulary.load(folder))


def _pairs(read: Callable) -> Callable[[Path], Any]:
    return lambda folder: read(str(folder), "train", ("en", "de"))


_BEST = "checkpoints/checkpoint_best.pt"
FORMATS: dict[str, Format] = {
    "marian.yml": Format("native", "config.yml", mutations.yaml_text, _import(read_native)),
    "marian.bin": Format("native", "model.ende.bin", mutations.some_bytes, _import(read_native)),
    "marian.spm": Format("native", "vocab.ende.spm", mutations.some_bytes, _import(read_native)),
    "marian.shortlist": Format("native", "lex.bin", mutations.some_bytes, _import(read_native)),
    "marian.npz": Format("native npz", "model.npz", mutations.zipped, _import(read_native)),
    "marian.vocab.yml": Format("native table", "vocab.yml", mutations.yaml_text,
                               _import(read_native)),
    "fairseq.pt": Format("fairseq", _BEST, mutations.zipped, _import(read_fairseq)),
    "fairseq.legacy": Format("fairseq legacy", _BEST, mutations.pickles, _import(read_fairseq)),
    "fairseq.dict": Format("fairseq", "data/dict.en.txt", mutations.some_bytes,
                           _import(read_fairseq)),
    "fairseq.codes": Format("fairseq", "data/bpe.code", mutations.some_bytes,
                            _import(read_fairseq)),
    "pytorch_model.bin": Format("pickled", "pytorch_model.bin", mutations.zipped, read_tensors),
    "safetensors.index": Format("sharded", "model.safetensors.index.json", mutations.json_text,
                                read_tensors),
    "safetensors": Format("sharded", "one.safetensors", mutations.after_header, read_tensors),
    **{f"{kind}.{file}": Format(kind, file, mutations.json_text, _import(read_folder))
       for kind in ("marian", "bart", "t5")
       for file in ("config.json", "generation_config.json", "tokenizer_config.json")},
    "marian.vocab.json": Format("marian", "vocab.json", mutations.json_text,
                                _import(read_folder)),
    "marian.source.spm": Format("marian", "source.spm", mutations.some_bytes,
                                _import(read_folder)),
    "bart.tokenizer.json": Format("bart", "tokenizer.json", mutations.json_text,
                                  _import(read_folder)),
    "t5.spiece.model": Format("t5", "spiece.model", mutations.some_bytes, _import(read_folder)),
    "run.config": Format("run", "config.json", mutations.json_text, workdir.read_config),
    **{f"run.{name}": Format("run", f"{name}.jsonl", mutations.json_lines, read_run)
       for name in ("metrics", "environment", "translations")},
    "run.checkpoint": Format("run", "checkpoints/3/metrics/metrics", mutations.json_text,
                             lambda folder: metrics(folder / "checkpoints" / "3", "bleu")),
    "run.shortlist": Format("run", shortlist.NAME, mutations.zipped, shortlist.load),
    "run.tokenizer": Format("run", "tokenizer.model", mutations.some_bytes, _load),
    "run.dictionary": Format("dictionary", "tokenizer.model", mutations.json_text, _load),
    "run.marian": Format("marian model", "tokenizer.model", mutations.json_text, _load),
    "run.fast": Format("fast", "tokenizer.model", mutations.json_text, _load),
    "text": Format("text", "train.en", mutations.some_bytes, _pairs(text.read_text)),
    "text.gz": Format("text", "valid.en.gz", mutations.gzipped,
                      lambda folder: text.read_lines(folder / "valid.en.gz")),
    "text.tsv": Format("text", "train.tsv", mutations.some_bytes, _pairs(text.read_tsv)),
    "text.jsonl": Format("text", "train.jsonl", mutations.json_lines, _pairs(text.read_jsonl)),
}  # fmt: skip
