"""Marian's binary lexical shortlists.

A header of six 8-byte numbers (magic number, checksum, numbers of frequent words, of words per
source word, of offsets, and of ids), the offsets, and the ids of 4 bytes each.
"""

import struct
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.regular_file import check_holes, open_regular
from decode.shortlist import Shortlist

_MARK = 0xF11A48D5013417F5
_HEADER = struct.Struct("<6Q")


def is_binary(file: Path) -> bool:
    """Whether a shortlist is binary, not a text table."""
    with open_regular(file) as content:
        return content.read(8) == struct.pack("<Q", _MARK)


def read_shortlist(file: Path, id_maps: list[np.ndarray], num_new: int, joint: bool) -> Shortlist:
    """Read a shortlist with Heed's ids; the first `num_new` of these exist in Heed only.

    `id_maps` have Marian's ids by Heed's. In a joint vocabulary a source word may be copied. Raises
    DataError if the shortlist is corrupt or of another vocabulary.
    """
    with open_regular(file) as stored:
        check_holes(stored, file)
        content = stored.read()
    if len(content) < _HEADER.size:
        raise DataError(f"{file} is corrupt: it ends after {len(content)} bytes")
    _, _, frequent, _, offsets, count = _HEADER.unpack_from(content)
    size = _HEADER.size + 8 * offsets + 4 * count
    if len(content) != size:
        raise DataError(f"{file} is corrupt: it has {len(content)} bytes, not {size}")
    starts = np.frombuffer(content, "<u8", offsets, _HEADER.size).astype(np.int64)
    ids = np.frombuffer(content, "<u4", count, _HEADER.size + 8 * offsets).astype(np.int64)
    source, target = (len(order) - num_new for order in id_maps)
    if offsets != source + 1:
        raise DataError(
            f"{file} has {offsets - 1} source words, but the vocabulary {source}: it is another "
            "model's"
        )
    ends = starts[-1] == count and (starts >= 0).all() and (starts[1:] >= starts[:-1]).all()
    if not ends or not (ids < target).all():
        raise DataError(f"{file} is corrupt: it contains ids outside the vocabulary")
    new_ids = np.empty(target, np.int32)
    new_ids[id_maps[1][num_new:]] = np.arange(num_new, target + num_new)
    lists = [new_ids[ids[starts[i] : starts[i + 1]]] for i in id_maps[0][num_new:]]
    if joint:
        lists = [np.append(words, id) for id, words in enumerate(lists, num_new)]
    lists = [np.zeros(0, np.int32)] * num_new + lists
    ends = np.cumsum([0, *map(len, lists)])
    words = np.concatenate(lists).astype(np.int32)
    return Shortlist(ends, words, new_ids[: min(frequent, target)], target + num_new)
