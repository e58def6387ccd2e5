"""T5's tokenizer: SentencePiece, sentinels and spare ids.

A text is split at special tokens ("</s>", "<extra_id_0>"); SentencePiece segments the text between
them.
"""

import os
from pathlib import Path

from data.errors import DataError
from data.marian_tokenizer import MarianTokenizer, MarianVocab
from data.tokenizer import processor
from data.vocabulary import Vocabulary
from interop.fields import read_bytes, shown
from interop.tokenizer_config import (
    NAME,
    TokenizerConfig,
    added_words,
    read_tokenizer_config,
)

_TOKENIZER: dict[str, tuple] = {
    "tokenizer_class": ("T5Tokenizer", "T5TokenizerFast"),
    "sp_model_kwargs": ({},),
    "split_special_tokens": (False,),
}
_MARKS = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """Read the vocabulary of spiece.model, followed by sentinels and padding to `size` ids.

    Raises DataError for files that are missing or inconsistent.
    """
    file, spiece = folder / NAME, folder / "spiece.model"
    settings = read_tokenizer_config(folder, _TOKENIZER)
    for name, mark in _MARKS.items():
        if settings.mark(name, mark) != mark:
            value = shown(settings.mark(name, mark))
            raise DataError(f'{file}: {name}_token={value} is not supported, only "{mark}"')
    if not os.path.lexists(spiece) and (folder / "tokenizer.json").exists():
        raise DataError(
            f"{spiece} is missing, and tokenizer.json alone is not supported: copy that of the "
            "pretrained model"
        )
    model = read_bytes(spiece)
    try:
        spm = processor(model)
    except DataError as error:
        raise DataError(f"{spiece}: {error}") from None
    special = spm.pad_id(), spm.eos_id(), spm.unk_id()
    if special != (0, 1, 2):
        raise DataError(
            f"{spiece}: padding, EOS and unknown word have the ids {special}, but T5 needs 0, 1, 2"
        )
    pieces = [spm.id_to_piece(id) for id in range(spm.get_piece_size())]
    if len(pieces) + settings.extra_ids > size:
        raise DataError(
            f"{spiece} has {len(pieces)} words and extra_ids={settings.extra_ids} more, but "
            f"config.json says vocab_size={size}"
        )
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(settings.extra_ids))]
    words = pieces + sentinels
    control = [piece for id, piece in enumerate(pieces) if spm.is_control(id)]
    _check_added(file, settings, words, {*control, pieces[2], *sentinels})
    spare = [f"<spare_{id}>" for id in range(len(words), size)]
    listed = {word for _, word in settings.listed()}
    added = {token.content for token in settings.added_tokens_decoder.values() if not token.special}
    unsplit = [word for word in sentinels if word in added - listed]  # these stay in outputs
    table = MarianVocab(
        tuple(words[3:] + spare),
        *(pieces[1], pieces[2], pieces[0]),
        special=tuple(word for word in control[2:] + sentinels if word not in unsplit),
        clean_up=settings.clean_up_tokenization_spaces,
        codes=False,
        spare=len(spare),
        whole=tuple(unsplit),
    )
    tokenizer = MarianTokenizer.make(model, model, table)
    return Vocabulary(tokenizer, tokenizer)


def _check_added(
    file: Path, settings: TokenizerConfig, words: list[str], special: set[str]
) -> None:
    """Raise DataError for added tokens, and for unknown special tokens."""
    for id, token in added_words(file, settings).items():
        word = token.content
        if words[id : id + 1] != [word] or word not in special:
            raise DataError(
                f"{file}: added token {id}, {word!r}, is not supported, only those of "
                "spiece.model and extra_ids"
            )
    for name, word in settings.listed():
        if word not in special:
            raise DataError(
                f"{file}: {name} has {word!r}, but only the sentinels of extra_ids are supported"
            )
