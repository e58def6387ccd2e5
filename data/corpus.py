"""Corpora: the demo grammar, local text, TSV, JSON lines, or a TFDS set.

A corpus is anything with a length and pairs by number, so a place in the data is one integer.
"""

import difflib

from data import text, tfds
from data.errors import DataError
from data.pairs import SPLITS, Corpus

KINDS = ("demo", "text", "tsv", "jsonl")


def open_corpus(
    kind: str,
    split: str,
    *,
    path: str = "",
    source_language: str = "en",
    target_language: str = "de",
    seed: int = 0,
) -> Corpus:
    """The pairs of one split ("train", "valid" or "test").

    `kind` is "demo"; "text", "tsv" or "jsonl" with `path` a folder of {split}.{language},
    {split}.tsv or {split}.jsonl, plain or .gz, or for text explicit files as
    "train=a.en,a.de;valid=b.en,b.de"; or the name of a TFDS translation set, known by its slash
    ("wmt14_translate/de-en"), with `path` the TFDS folder if not the usual one. Raises DataError.
    """
    languages = source_language, target_language
    if split not in SPLITS:
        raise DataError(f"split={split!r} is not one of: {', '.join(SPLITS)}")
    if "/" in kind:
        return tfds.read(kind, split, path, languages)
    if kind == "demo":
        from data import demo  # its tables are built on import, for nothing else

        return demo.Demo(split, seed, *languages)
    readers = {"text": text.read_text, "tsv": text.read_tsv, "jsonl": text.read_jsonl}
    if kind not in readers:
        near = difflib.get_close_matches(kind, KINDS, 1)
        hint = (
            f"did you mean {near[0]}?" if near else "or a TFDS name such as wmt14_translate/de-en"
        )
        raise DataError(f"data.kind={kind!r} is not one of: {', '.join(KINDS)}; {hint}")
    if not path:
        raise DataError(f"data.kind={kind} needs --config.data.path=DIR")
    return readers[kind](path, split, languages)
