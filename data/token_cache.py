"""Cache of tokenized text on disk, keyed by its contents.

The first use writes, any later one of the same text and the same vocabulary reads: another run,
another process, another workdir. What is not whole is made anew.
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

_FORMAT = 2  # another number where ids or files come to mean something else
_MOST_BYTES = 20 << 30


def tokenize_cached(
    pairs: Corpus,
    vocabulary: Vocabulary,
    folder: Path | None,
    progress: Callable[[int], None] = lambda _: None,
) -> TokenPairs:
    """What `tokenize` returns: out of `folder` if it is there, else made, and put there.

    Of several processes that share the folder one makes it while the others wait. A folder that
    cannot be written to, or is full, costs the time and no more; None is no folder. Where there
    are over 20 GB, what was longest unused goes.
    """
    if folder is None:
        return tokenize(pairs, vocabulary, progress)
    file = folder / f"{_key(pairs, vocabulary)}.npz"
    with ExitStack() as stack:
        found = _read(file)
        if found is None:
            with suppress(OSError):
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(file.with_suffix(".lock")))
            found = _read(file)  # by now another may have made it
        if found is not None:
            progress(len(pairs))
            return found
        made = tokenize(pairs, vocabulary, progress)
        with suppress(OSError):
            _make_room(folder, sum(part.nbytes for part in _parts(made).values()))
            write_atomic(file, _bytes(made))
        return made


def _key(pairs: Corpus, vocabulary: Vocabulary) -> str:
    """A digest of the text, of the vocabulary, and of what splits the one by the other."""
    text = pairs.digest() if hasattr(pairs, "digest") else text_digest(pairs)
    parts = _FORMAT, sentencepiece.__version__, vocabulary.digest(), text
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def text_digest(pairs: Corpus, chunk: int = 4096) -> str:
    """A hexadecimal digest of all sentences, whatever made them."""
    digest = hashlib.sha256()
    for start in range(0, len(pairs), chunk):
        sides = (side for i in range(start, min(start + chunk, len(pairs))) for side in pairs[i])
        digest.update("".join(f"{len(side)}:{side}" for side in sides).encode())
    return digest.hexdigest()


def _parts(pairs: TokenPairs) -> dict[str, np.ndarray]:
    return {
        f"{name}_{part}": getattr(side, part)
        for name, side in pairs._asdict().items()
        for part in ("offsets", "ids")
    }


def _bytes(pairs: TokenPairs) -> bytes:
    file = io.BytesIO()
    digest = np.frombuffer(pairs.digest().encode(), np.uint8)
    np.savez(file, digest=digest, **_parts(pairs))  # type: ignore[arg-type]  # are arrays
    return file.getvalue()


def _read(file: Path) -> TokenPairs | None:
    """What a file holds; None where it is missing or not whole."""
    try:
        told = read_npz(file)
        sides = (
            Ragged.of(told[f"{name}_offsets"], told[f"{name}_ids"]) for name in TokenPairs._fields
        )
        found, digest = TokenPairs(*sides), told["digest"].tobytes()
        if found.digest().encode() != digest:
            return None
        os.utime(file)  # it was used
        return found
    except (OSError, ValueError, KeyError, EOFError, RuntimeError, BadZipFile, zlib.error):
        return None


def _make_room(folder: Path, needed: int) -> None:
    """Removes the longest unused files until there is room for `needed` bytes more."""
    used = sorted(folder.glob("*.npz"), key=lambda file: file.stat().st_mtime)
    size = sum(file.stat().st_size for file in used) + needed
    for file in used:
        if size <= _MOST_BYTES:
            return
        size -= file.stat().st_size
        file.unlink(missing_ok=True)
        file.with_suffix(".lock").unlink(missing_ok=True)
