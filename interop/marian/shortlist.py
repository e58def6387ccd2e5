"""Marian's binary lexical shortlists.

A file has a header of six 8-byte numbers (magic number, checksum, numbers of frequent words, words
per source word, offsets and ids), the offsets, and the ids of 4 bytes each.
"""

import struct
from pathlib import Path

import numpy as np

from data.errors import DataError
from data.regular_file import check_holes, open_regular
from decode.shortlist import Shortlist

_MAGIC = 0xF11A48D5013417F5
_HEADER = struct.Struct("<6Q")


def is_binary(file: Path) -> bool:
    """Whether a shortlist is binary, not a text table."""
    with open_regular(file) as content:
        return content.read(8) == struct.pack("<Q", _MAGIC)


def read_shortlist(
    file: Path, id_maps: list[np.ndarray], num_added_ids: int, shared: bool
) -> Shortlist:
    """Read a shortlist with Heed's ids, the first `num_added_ids` of which exist only in Heed.

    `id_maps` have Marian's ids by Heed's. In a shared vocabulary each source word may be copied.
    Raises DataError if the shortlist is corrupt or of another vocabulary.
    """
    with open_regular(file) as stored:
        check_holes(stored, file)
        content = stored.read()
    if len(content) < _HEADER.size:
        raise DataError(f"{file} is corrupt: it has only {len(content)} bytes")
    _, _, frequent, _, offsets, count = _HEADER.unpack_from(content)
    size = _HEADER.size + 8 * offsets + 4 * count
    if len(content) != size:
        raise DataError(f"{file} is corrupt: it has {len(content)} bytes, not {size}")
    starts = np.frombuffer(content, "<u8", offsets, _HEADER.size).astype(np.int64)
    ids = np.frombuffer(content, "<u4", count, _HEADER.size + 8 * offsets).astype(np.int64)
    source, target = (len(order) - num_added_ids for order in id_maps)
    if offsets != source + 1:
        raise DataError(
            f"{file} has {offsets - 1} source words, but the vocabulary has {source}: it "
            "belongs to another model"
        )
    ascending = (starts >= 0).all() and (starts[1:] >= starts[:-1]).all()
    if starts[-1] != count or not ascending or not (ids < target).all():
        raise DataError(f"{file} is corrupt: it contains ids outside the vocabulary")
    heed_ids = np.empty(target, np.int32)
    heed_ids[id_maps[1][num_added_ids:]] = np.arange(num_added_ids, target + num_added_ids)
    lists = [heed_ids[ids[starts[i] : starts[i + 1]]] for i in id_maps[0][num_added_ids:]]
    if shared:
        lists = [np.append(words, id) for id, words in enumerate(lists, num_added_ids)]
    lists = [np.zeros(0, np.int32)] * num_added_ids + lists
    offsets_by_id = np.cumsum([0, *map(len, lists)])
    words = np.concatenate(lists).astype(np.int32)
    return Shortlist(
        offsets_by_id, words, heed_ids[: min(frequent, target)], target + num_added_ids
    )
