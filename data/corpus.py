"""Corpora: the demo grammar, local text, TSV, JSON lines, or a TFDS set.

A corpus has a length and pairs by index, so a position in the data is one integer.
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
    """Open the pairs of one split ("train", "valid" or "test").

    `kind` is "demo"; "text", "tsv" or "jsonl"; or a TFDS translation set, recognized by its slash
    ("wmt14_translate/de-en"). For text, tsv and jsonl `path` is a folder of {split}.{language},
    {split}.tsv or {split}.jsonl, plain or .gz; for text it may also name files, as in
    "train=a.en,a.de;valid=b.en,b.de". For TFDS `path` is its folder if not the default. Raises
    DataError.
    """
    languages = source_language, target_language
    if split not in SPLITS:
        raise DataError(f"split={split!r} is not one of: {', '.join(SPLITS)}")
    if "/" in kind:
        return tfds.read(kind, split, path, languages)
    if kind == "demo":
        from data import demo  # lazy import: it builds its tables on import

        return demo.Demo(split, seed, *languages)
    readers = {"text": text.read_text, "tsv": text.read_tsv, "jsonl": text.read_jsonl}
    if kind not in readers:
        hint = "or a TFDS name such as wmt14_translate/de-en"
        if matches := difflib.get_close_matches(kind, KINDS, 1):
            hint = f"did you mean {matches[0]}?"
        raise DataError(f"data.kind={kind!r} is not one of: {', '.join(KINDS)}; {hint}")
    if not path:
        raise DataError(f"data.kind={kind} needs --config.data.path=DIR")
    return readers[kind](path, split, languages)
