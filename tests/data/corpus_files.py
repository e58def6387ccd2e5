"""Corpus files of a few pairs, and the error of opening a corpus."""

import gzip
import json

import pytest

from data.corpus import open_corpus
from data.errors import DataError

PAIRS = [
    ("A cat.", "Eine Katze."),
    ("  two\u2028lines \x0b\x85", "zwei\x0c Zeilen"),
    ("", "x y"),
    ("z", "z"),
]


def failure(kind, path, split="train", **languages):
    with pytest.raises(DataError) as error:
        open_corpus(kind, split, path=str(path), **languages)
    assert "\n" not in str(error.value)
    return str(error.value)


def write(folder, kind, end="\n", last="\n", pack=False, bom=b""):
    def put(name, lines):
        content = bom + (end.join(lines) + last).encode()
        if pack:
            name, content = f"{name}.gz", gzip.compress(content)
        (folder / name).write_bytes(content)

    if kind == "text":
        put("train.en", [pair[0] for pair in PAIRS])
        put("train.de", [pair[1] for pair in PAIRS])
    elif kind == "tsv":
        put("train.tsv", ["\t".join(pair) for pair in PAIRS])
    else:
        put("train.jsonl", [json.dumps({"en": s, "de": t, "id": 7}) for s, t in PAIRS])
