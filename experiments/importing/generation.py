"""How a Hugging Face model is meant to be searched, as the settings of a search here."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from data.corpus import DataError
from experiments.config import SearchConfig
from experiments.importing.fields import fraction, number, read_json, refuse_others

# Their name, and the values with which outputs are what they are here without it.
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
_STOPPING = {False: "now", True: "first", "never": "bounded"}  # by their early_stopping


def search_settings(
    file: Path,
    found: Mapping[str, Any],
    *,
    pad: int,
    eos: int,
    unknown: int,
    positions: int,
    start: int | None = None,
    forces: bool = False,
) -> SearchConfig:
    """The settings of a generation_config.json, or of a config.json that has them too.

    Ids are those of the special words there; outputs begin with `start`, or else with the padding.
    Where it `forces` a first word, that is the caller's to read. Raises DataError, naming the
    field, for what this search does not do.
    """
    refuse_others(file, found, _NEUTRAL | ({} if forces else {"forced_bos_token_id": ()}))
    for name, id in ("pad_token_id", pad), ("eos_token_id", eos), ("forced_eos_token_id", eos):
        if found.get(name, id) not in (id, [id], None):
            raise DataError(f"{file}: {name}={found[name]} is not supported, only {id}")
    start, name = (pad, "pad_token_id") if start is None else (start, "eos_token_id")
    if found.get("decoder_start_token_id", start) not in (start, None):
        raise DataError(
            f"{file}: decoder_start_token_id={found['decoder_start_token_id']} is not supported, "
            f"only {name}={start}, as all models of this kind have it"
        )
    early = found.get("early_stopping") or False
    if not isinstance(early, bool | str) or early not in _STOPPING:
        raise DataError(f"{file}: early_stopping={early!r} is not supported: false, true, never")
    banned = found.get("bad_words_ids") or []
    for word in banned:
        if word not in ([pad], [unknown]):
            raise DataError(
                f"{file}: bad_words_ids has {word}, and only {[pad]} and {[unknown]}, the padding "
                "and the unknown word, are supported: translate with --ban instead"
            )
    count = partial(number, file, found)
    forced = found.get("forced_eos_token_id") is not None
    limit = count("max_new_tokens", 0) or (count("max_length", 0) or positions) - 1
    limit += not forced  # what is not forced to end has no end, which limits here count
    return SearchConfig(
        beam_size=count("num_beams", 1),
        penalty="average",
        alpha=fraction(file, found, "length_penalty", 1.0),
        stopping=_STOPPING[early],
        free_end=True,
        min_length=max(count("min_length", 1), count("min_new_tokens", 0) + 1, 1),
        max_length=limit,
        extra_length=limit,  # an output's own source sets no limit
        no_repeat_ngrams=count("no_repeat_ngram_size", 0),
        allow_unknown=[unknown] not in banned,
        renormalize=bool(found.get("renormalize_logits")),
    )


def find_search(folder: Path, config: Mapping[str, Any]) -> tuple[Path, Mapping[str, Any]]:
    """The file of a folder that says how to search, and what it says: config.json, if no other."""
    file = folder / "generation_config.json"
    return (file, read_json(file)) if file.exists() else (folder / "config.json", config)
