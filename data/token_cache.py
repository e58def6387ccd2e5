"""Cache of tokenized text on disk, keyed by its contents.

The first use of a text with a vocabulary writes a file; later uses read it, also from other runs,
processes and workdirs. If the file is corrupt, the text is tokenized again.
"""

import hashlib
import io
import os
import zlib
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import sentencepiece
from filelock import FileLock

from data.atomic_write import write_atomic
from data.npz import read_npz
from data.pairs import Corpus
from data.pipeline import Ragged, TokenPairs, tokenize
from data.vocabulary import Vocabulary

_FORMAT = 2  # increase it when the meaning of ids or files changes
_MAX_BYTES = 20 << 30


def tokenize_cached(
    pairs: Corpus,
    vocabulary: Vocabulary,
    folder: Path | None,
    progress: Callable[[int], None] = lambda _: None,
) -> TokenPairs:
    """Tokenize with a cache in `folder`: read the result from there, or compute and store it.

    If several processes share the folder, one computes while the others wait. A folder that cannot
    be written to, or is full, only costs time; None means no cache. Above 20 GB the least recently
    used files are removed.
    """
    if folder is None:
        return tokenize(pairs, vocabulary, progress)
    file = folder / f"{_key(pairs, vocabulary)}.npz"
    with ExitStack() as stack:
        cached = _read(file)
        if cached is None:
            with suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(file.with_suffix(".lock")))
            cached = _read(file)  # another process may have written it meanwhile
        if cached is not None:
            progress(len(pairs))
            return cached
        tokens = tokenize(pairs, vocabulary, progress)
        with suppress(OSError):
            _evict(folder, sum(array.nbytes for array in _arrays(tokens).values()))
            write_atomic(file, _serialize(tokens))
        return tokens


def _key(pairs: Corpus, vocabulary: Vocabulary) -> str:
    """A digest of the text, the vocabulary, and the version of SentencePiece."""
    text = pairs.digest() if hasattr(pairs, "digest") else text_digest(pairs)
    key = _FORMAT, sentencepiece.__version__, vocabulary.digest(), text
    return hashlib.sha256(repr(key).encode()).hexdigest()


def text_digest(pairs: Corpus, chunk: int = 4096) -> str:
    """A hexadecimal digest of all sentences, independent of their source."""
    digest = hashlib.sha256()
    for start in range(0, len(pairs), chunk):
        sides = (side for i in range(start, min(start + chunk, len(pairs))) for side in pairs[i])
        digest.update("".join(f"{len(side)}:{side}" for side in sides).encode())
    return digest.hexdigest()


def _arrays(pairs: TokenPairs) -> dict[str, np.ndarray]:
    return {
        f"{name}_{part}": getattr(side, part)
        for name, side in pairs._asdict().items()
        for part in ("offsets", "ids")
    }


def _serialize(pairs: TokenPairs) -> bytes:
    file = io.BytesIO()
    digest = np.frombuffer(pairs.digest().encode(), np.uint8)
    np.savez(file, digest=digest, **_arrays(pairs))  # type: ignore[arg-type]  # are arrays
    return file.getvalue()


def _read(file: Path) -> TokenPairs | None:
    """Read a cache file; None if it is missing or corrupt."""
    try:
        arrays = read_npz(file)
        sides = (
            Ragged.of(arrays[f"{name}_offsets"], arrays[f"{name}_ids"])
            for name in TokenPairs._fields
        )
        pairs, digest = TokenPairs(*sides), arrays["digest"].tobytes()
        if pairs.digest().encode() != digest:
            return None
        os.utime(file)  # mark it as recently used
        return pairs
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, BadZipFile, zlib.error):
        return None


def _evict(folder: Path, new_bytes: int) -> None:
    """Remove the least recently used files until `new_bytes` more bytes fit."""
    files = sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_mtime)
    size = sum(file.stat().st_size for file in files) + new_bytes
    for file in files:
        if size <= _MAX_BYTES:
            return
        size -= file.stat().st_size
        file.unlink(missing_ok=True)
        file.with_suffix(".lock").unlink(missing_ok=True)
