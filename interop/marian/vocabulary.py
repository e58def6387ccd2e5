"""Vocabularies of Marian's models: SentencePiece, or a YAML table.

A table (YAML, word to id) comes with source.spm and target.spm beside it, as in OPUS-MT. Ids are
permuted so that the special ids are Heed's: PAD and BOS, which Marian lacks, then its EOS and UNK,
then all others in order.
"""

from pathlib import Path

import numpy as np

from data.errors import DataError
from data.marian_tokenizer import MarianTokenizer, MarianVocab, processor
from data.regular_file import read_regular
from data.vocabulary import Vocabulary
from data.yaml_file import read_strings

_END, _UNKNOWN = "</s>", "<unk>"


def read_vocabulary(source: Path, target: Path) -> tuple[Vocabulary, list[np.ndarray]]:
    """Read both tokenizers, and for each Marian's ids by Heed's ids, from 2 on (zeros before).

    Raises DataError for a file that is missing, or that is no vocabulary.
    """
    sides, id_maps = [], []
    for name, file in ("source", source), ("target", target):
        if file.suffix == ".spm":
            cuts = read_regular(file)
            words, plain = _pieces(file, cuts), True
        else:
            cuts = read_regular(file.parent / f"{name}.spm")
            words, plain = _table(file), False
        try:
            end, unknown = (words.index(mark) for mark in (_END, _UNKNOWN))
        except ValueError:
            raise DataError(f"{file} lacks {_END} or {_UNKNOWN}") from None
        ordinary = [id for id in range(len(words)) if id not in (end, unknown)]
        id_maps.append(np.array([0, 0, end, unknown, *ordinary]))
        table = MarianVocab(tuple(words[id] for id in ordinary), _END, _UNKNOWN, "", plain=plain)
        try:
            sides.append(MarianTokenizer.make(cuts, cuts, table))
        except DataError as error:
            raise DataError(f"{file}: {error}") from None
    shared = source == target and source.suffix == ".spm"
    return Vocabulary(sides[0], sides[0] if shared else sides[1]), id_maps


def _pieces(file: Path, model: bytes) -> list[str]:
    try:
        cuts = processor(model)
    except DataError as error:
        raise DataError(f"{file} is {error}") from None
    try:
        words = [cuts.id_to_piece(id) for id in range(cuts.get_piece_size())]
    except UnicodeDecodeError:
        raise DataError(f"{file} has pieces that are not UTF-8") from None
    for id, mark in (cuts.eos_id(), _END), (cuts.unk_id(), _UNKNOWN):
        if id >= 0:
            words[id] = mark  # whatever its name
    return words


def _table(file: Path) -> list[str]:
    ids = read_strings(file)
    words = {id: word for word, id in ids.items()}
    if len(words) != len(ids) or words.keys() != set(map(str, range(len(ids)))):
        raise DataError(f"{file}: it needs one word for each id from 0 to {len(ids) - 1}")
    return [words[str(id)] for id in range(len(words))]
