"""Read vocabularies of Marian models: SentencePiece, or a YAML table.

A table (YAML, word to id) needs source.spm and target.spm beside it, as in OPUS-MT. Ids are
permuted so that the special ids are Heed's: PAD and BOS, which Marian lacks, followed by its EOS
and UNK, then all others in order.
"""

from pathlib import Path

import numpy as np

from data.errors import DataError
from data.marian_tokenizer import MarianTokenizer, MarianVocab, processor
from data.regular_file import read_regular
from data.vocabulary import Vocabulary
from data.yaml_file import read_strings

_EOS, _UNKNOWN = "</s>", "<unk>"


def read_vocabulary(source: Path, target: Path) -> tuple[Vocabulary, list[np.ndarray]]:
    """Read both tokenizers, and for each Marian's ids by Heed's ids; 0 for PAD and BOS.

    Raises DataError for a missing file, and a file that is not a vocabulary.
    """
    sides, id_maps = [], []
    for name, file in ("source", source), ("target", target):
        if file.suffix == ".spm":
            model = read_regular(file)
            words, plain = _pieces(file, model), True
        else:
            model = read_regular(file.parent / f"{name}.spm")
            words, plain = _word_list(file), False
        try:
            eos, unknown = (words.index(mark) for mark in (_EOS, _UNKNOWN))
        except ValueError:
            raise DataError(f"{file} lacks {_EOS} or {_UNKNOWN}") from None
        ordinary = [id for id in range(len(words)) if id not in (eos, unknown)]
        id_maps.append(np.array([0, 0, eos, unknown, *ordinary]))
        table = MarianVocab(tuple(words[id] for id in ordinary), _EOS, _UNKNOWN, "", plain=plain)
        try:
            sides.append(MarianTokenizer.make(model, model, table))
        except DataError as error:
            raise DataError(f"{file}: {error}") from None
    shared = source == target and source.suffix == ".spm"
    return Vocabulary(sides[0], sides[0] if shared else sides[1]), id_maps


def _pieces(file: Path, model: bytes) -> list[str]:
    try:
        spm = processor(model)
    except DataError as error:
        raise DataError(f"{file} is {error}") from None
    try:
        words = [spm.id_to_piece(id) for id in range(spm.get_piece_size())]
    except UnicodeDecodeError:
        raise DataError(f"{file} has pieces that are not UTF-8") from None
    for id, mark in (spm.eos_id(), _EOS), (spm.unk_id(), _UNKNOWN):
        if id >= 0:
            words[id] = mark  # whatever its name
    return words


def _word_list(file: Path) -> list[str]:
    ids = read_strings(file)
    words = {id: word for word, id in ids.items()}
    if len(words) != len(ids) or words.keys() != set(map(str, range(len(ids)))):
        raise DataError(f"{file}: it needs one word for each id from 0 to {len(ids) - 1}")
    return [words[str(id)] for id in range(len(words))]
