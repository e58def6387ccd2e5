"""The tokenizer of T5's models: SentencePiece, sentinels after its words, and spare ids.

A text is split at the special words that stand in it ("</s>", "<extra_id_0>"), and SentencePiece
cuts what lies between.
"""

from pathlib import Path
from typing import Any

from data.corpus import DataError
from data.marian import MarianTokenizer, Words, processor
from data.tokenizer import Vocabulary
from experiments.importing.fields import (
    added_tokens,
    number,
    read_bytes,
    read_json,
    refuse_others,
    word_of,
)

_TOKENIZER: dict[str, tuple] = {
    "tokenizer_class": ("T5Tokenizer", "T5TokenizerFast"),
    "sp_model_kwargs": ({},),
    "split_special_tokens": (False,),
    "pad_token": ("<pad>",),
    "eos_token": ("</s>",),
    "unk_token": ("<unk>",),
}


def read_vocabulary(folder: Path, size: int) -> Vocabulary:
    """The words of spiece.model, the sentinels after them, and names that fill `size` ids.

    Raises DataError for files that are missing, or that do not go together.
    """
    file, spiece = folder / "tokenizer_config.json", folder / "spiece.model"
    settings = read_json(file, {})
    named = {name: word_of(settings.get(name)) for name in settings if name.endswith("_token")}
    refuse_others(file, settings | named, _TOKENIZER)
    if not spiece.exists() and (folder / "tokenizer.json").exists():
        raise DataError(
            f"{spiece} is missing, and tokenizer.json alone is not supported: copy that of the "
            "model that this one was trained from"
        )
    model = read_bytes(spiece)
    try:
        cuts = processor(model)
    except DataError as error:
        raise DataError(f"{spiece}: {error}") from None
    special = cuts.pad_id(), cuts.eos_id(), cuts.unk_id()
    if special != (0, 1, 2):
        raise DataError(
            f"{spiece}: padding, end and unknown word have the ids {special}, and T5's are 0, 1, 2"
        )
    pieces = [cuts.id_to_piece(id) for id in range(cuts.get_piece_size())]
    count = number(file, settings, "extra_ids", 100)
    sentinels = [f"<extra_id_{i}>" for i in reversed(range(count))]
    words = pieces + sentinels
    control = [piece for id, piece in enumerate(pieces) if cuts.is_control(id)]
    _check_added(file, settings, words, {*control, pieces[2], *sentinels})
    if len(words) > size:
        raise DataError(
            f"{spiece} has {len(pieces)} words and extra_ids={count} more, but config.json says "
            f"vocab_size={size}"
        )
    spare = [f"<spare_{id}>" for id in range(len(words), size)]
    table = Words(
        tuple(words[3:] + spare),
        *(pieces[1], pieces[2], pieces[0]),
        special=tuple(control[2:] + sentinels),
        clean_up=bool(settings.get("clean_up_tokenization_spaces", False)),
        codes=False,
        spare=len(spare),
    )
    both = MarianTokenizer.make(model, model, table)
    return Vocabulary(both, both)


def _check_added(file: Path, settings: dict[str, Any], words: list[str], special: set[str]) -> None:
    """Raises DataError where words are added, or special ones are named that are not."""
    for id, word in added_tokens(file, settings):
        if words[id : id + 1] != [word]:
            raise DataError(
                f"{file}: added token {id}, {word!r}, is not supported, only those of "
                "spiece.model and extra_ids"
            )
    for name in "additional_special_tokens", "extra_special_tokens":
        for token in settings.get(name) or []:
            if word_of(token) not in special:
                raise DataError(
                    f"{file}: {name} has {word_of(token)!r}, and only the sentinels of extra_ids "
                    "are supported"
                )
