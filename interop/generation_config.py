"""Convert Hugging Face generation settings to a SearchConfig."""

import os
import reprlib
from pathlib import Path

from msgspec import Struct

from data.errors import DataError
from decode.options import MAX_COUNT
from experiments.config import SearchConfig
from interop.fields import Count, Id, name_settings, read_settings
from model import ConfigError

# Settings without a counterpart in Heed, and their values without effect.
_NEUTRAL: dict[str, tuple] = {
    "do_sample": (False,),
    "num_beam_groups": (1,),
    "diversity_penalty": (0.0,),
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "encoder_no_repeat_ngram_size": (0,),
    "guidance_scale": (1, 1.0),
    **dict.fromkeys(("force_words_ids", "constraints", "forced_decoder_ids"), ()),
    **dict.fromkeys(("sequence_bias", "exponential_decay_length_penalty"), ()),
    **dict.fromkeys(("suppress_tokens", "begin_suppress_tokens", "penalty_alpha"), ([],)),
}
_NAMES = {  # of SearchConfig's fields in the file
    "beam_size": "num_beams",
    "alpha": "length_penalty",
    "no_repeat_ngrams": "no_repeat_ngram_size",
    "renormalize": "renormalize_logits",
}
_STOPPING = {False: "unbeaten", True: "full", "never": "unbeatable"}  # by early_stopping


class Generation(Struct):
    """A generation_config.json, or a config.json with the same fields."""

    pad_token_id: Id | list[Id] | None = None
    eos_token_id: Id | list[Id] | None = None
    decoder_start_token_id: Id | None = None
    forced_bos_token_id: Id | None = None
    forced_eos_token_id: Id | list[Id] | None = None
    bad_words_ids: list[list[Id]] = []
    early_stopping: bool | str = False
    num_beams: Count = 1
    length_penalty: float = 1.0
    max_length: Count = 0
    max_new_tokens: Count = 0
    min_length: Count = 1
    min_new_tokens: Count = 0
    no_repeat_ngram_size: Count = 0
    renormalize_logits: bool = False


def read_generation(folder: Path, forces: bool = False) -> tuple[Path, Generation]:
    """Read a folder's generation settings, else those in config.json: the file and its content.

    With `forces`, the caller handles a forced first token. Raises DataError, naming the field, for
    settings that the search does not support.
    """
    file = folder / "generation_config.json"
    if not os.path.lexists(file):
        file = folder / "config.json"
    neutral = _NEUTRAL | ({} if forces else {"forced_bos_token_id": ()})
    return file, read_settings(file, Generation, neutral)


def search_settings(
    file: Path,
    generation: Generation,
    *,
    pad: int,
    eos: int,
    unknown: int,
    positions: int,
    start: int | None = None,
) -> SearchConfig:
    """Convert generation settings to a SearchConfig.

    Ids are the file's special ids; decoder inputs start with `start`, by default the padding.
    Raises DataError, naming the field, for settings that the search does not support.
    """
    for name, id in ("pad_token_id", pad), ("eos_token_id", eos), ("forced_eos_token_id", eos):
        if getattr(generation, name) not in (id, [id], None):
            raise DataError(
                f"{file}: {name}={getattr(generation, name)} is not supported, only {id}"
            )
    start, name = (pad, "pad_token_id") if start is None else (start, "eos_token_id")
    if generation.decoder_start_token_id not in (start, None):
        raise DataError(
            f"{file}: decoder_start_token_id={generation.decoder_start_token_id} is not supported, "
            f"only {name}={start}, as in all models of this type"
        )
    if generation.early_stopping not in _STOPPING:
        raise DataError(
            f"{file}: early_stopping={reprlib.repr(generation.early_stopping)} is not supported: "
            "false, true, never"
        )
    for word in generation.bad_words_ids:
        if word not in ([pad], [unknown]):
            raise DataError(
                f"{file}: bad_words_ids has {word}, but only {[pad]} and {[unknown]}, the padding "
                "and the unknown word, are supported: use --forbid for others"
            )
    limit = generation.max_new_tokens or (generation.max_length or positions) - 1
    limit += generation.forced_eos_token_id is None  # without a forced EOS the limit excludes EOS
    limit = min(limit, MAX_COUNT)
    try:
        return SearchConfig(
            beam_size=generation.num_beams,
            penalty="average",
            alpha=generation.length_penalty,
            stopping=_STOPPING[generation.early_stopping],
            free_eos_at_limit=True,
            min_length=max(generation.min_length, generation.min_new_tokens + 1, 1),
            max_length=limit,
            max_length_offset=limit,  # no limit relative to the source
            no_repeat_ngrams=generation.no_repeat_ngram_size,
            allow_unknown=[unknown] not in generation.bad_words_ids,
            renormalize=generation.renormalize_logits,
        )
    except ConfigError as error:
        raise DataError(f"{file}: {name_settings(error, _NAMES)}") from None
