"""Marian's binary lexical shortlists.

Six numbers of 8 bytes (a mark, a checksum, how many frequent words, how many words of each source
word, how many offsets, how many ids), the offsets, and the ids of 4 bytes each.
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
    """Whether a shortlist is of this kind, and not a table in text."""
    with open_regular(file) as content:
        return content.read(8) == struct.pack("<Q", _MARK)


def read_shortlist(file: Path, id_maps: list[np.ndarray], own: int, joint: bool) -> Shortlist:
    """The shortlist in our ids; `id_maps` have their ids by ours, of which `own` are only ours.

    In a joint vocabulary a source word may be said as it is. Raises DataError where it is damaged
    or another vocabulary's.
    """
    with open_regular(file) as stored:
        check_holes(stored, file)
        content = stored.read()
    if len(content) < _HEADER.size:
        raise DataError(f"{file} is damaged: it ends after {len(content)} bytes")
    _, _, frequent, _, offsets, count = _HEADER.unpack_from(content)
    size = _HEADER.size + 8 * offsets + 4 * count
    if len(content) != size:
        raise DataError(f"{file} is damaged: it has {len(content)} bytes, not {size}")
    starts = np.frombuffer(content, "<u8", offsets, _HEADER.size).astype(np.int64)
    ids = np.frombuffer(content, "<u4", count, _HEADER.size + 8 * offsets).astype(np.int64)
    source, target = (len(order) - own for order in id_maps)
    if offsets != source + 1:
        raise DataError(
            f"{file} has {offsets - 1} source words, but the vocabulary {source}: it is another "
            "model's"
        )
    ends = starts[-1] == count and (starts >= 0).all() and (starts[1:] >= starts[:-1]).all()
    if not ends or not (ids < target).all():
        raise DataError(f"{file} is damaged: it names words that there are not")
    param_path = np.empty(target, np.int32)
    param_path[id_maps[1][own:]] = np.arange(own, target + own)
    lists = [param_path[ids[starts[i] : starts[i + 1]]] for i in id_maps[0][own:]]
    if joint:
        lists = [np.append(words, id) for id, words in enumerate(lists, own)]
    lists = [np.zeros(0, np.int32)] * own + lists
    ends = np.cumsum([0, *map(len, lists)])
    words = np.concatenate(lists).astype(np.int32)
    return Shortlist(ends, words, param_path[: min(frequent, target)], target + own)
