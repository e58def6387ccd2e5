"""What a fairseq checkpoint says of its model, and of how it is searched.

Older ones have all settings in one list, `args`; newer ones have a tree, `cfg`, whose `model` is
such a list, or has trees again. All of them become one list, of the names that `args` has.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from data.corpus import DataError
from decode.options import SearchOptions
from experiments.config import SearchConfig
from experiments.importing.fields import number, refuse_others

_ALWAYS = 5, 1.0, 200  # beam, lenpen and max_len_b of fairseq-generate
_SEARCH: dict[str, tuple] = {  # their name, and the values that change nothing
    "max_len_a": (0,),
    "unkpen": (0,),
    "temperature": (1,),
    "prefix_size": (0,),
    "diverse_beam_groups": (-1, 0, 1),
    "diversity_rate": (-1, 0),
    "lm_path": ("",),
    "constraints": (),
    "replace_unk": (),
    **dict.fromkeys(("sampling", "match_source_len", "retain_dropout"), (False,)),
}


def read_settings(file: Path, content: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Those of the model and its task, and those of a search; raises DataError.

    `content` is that of the checkpoint.
    """
    content = content if isinstance(content, Mapping) else {}
    if not isinstance(content.get("model"), Mapping):
        raise DataError(f"{file} is no checkpoint of fairseq: it has no weights named 'model'")
    cfg = _plain(content.get("cfg"))
    cfg = cfg if isinstance(cfg, Mapping) else {}  # an older one's is None
    told = cfg.get("model") if cfg else _plain(content.get("args"))
    if not isinstance(told, Mapping) or not told:
        raise DataError(f"{file} is no checkpoint of fairseq: it has neither 'cfg' nor 'args'")
    task = cfg.get("task") if isinstance(cfg.get("task"), Mapping) else {}
    settings = {name: value for name, value in task.items() if value is not None} | dict(told)
    for side in "encoder", "decoder":
        if isinstance(told.get(side), Mapping):
            settings |= {f"{side}_{name}": value for name, value in told[side].items()}
    for name in "source_lang", "target_lang", "data":
        settings[name] = settings.get(name) or task.get(name)
    settings["arch"] = told.get("arch") or told.get("_name")
    for name in "task", "bpe", "tokenizer":
        # Their settings are a tree or, with no more to set, a name.
        value = cfg.get(name) or told.get(name)
        settings[name] = value.get("_name") if isinstance(value, Mapping) else value
        if isinstance(value, Mapping) and name == "bpe":
            settings |= {key: each for key, each in value.items() if key != "_name"}
    generation = cfg.get("generation")
    return settings, dict(generation) if isinstance(generation, Mapping) else {}


def _plain(value: Any) -> Any:
    """Settings without what OmegaConf wraps them in."""
    if isinstance(value, Mapping):
        if "_content" in value:
            return _plain(value["_content"])
        if "_val" in value:
            return value["_val"]
        return {name: _plain(each) for name, each in value.items()}
    return value


def search_settings(file: Path, found: Mapping[str, Any], longest: int) -> SearchConfig:
    """How fairseq-generate would search; raises DataError, naming the field.

    `longest` is how many positions an output may have there.
    """
    refuse_others(file, found, _SEARCH)
    beam, power, limit = _ALWAYS
    # Theirs does not count the end.
    limit = 1 + min(number(file, found, "max_len_b", limit), longest - 1)
    try:
        search = SearchConfig(
            beam_size=number(file, found, "beam", beam),
            penalty="none" if found.get("unnormalized") else "average",
            alpha=0.0 if found.get("unnormalized") else float(found.get("lenpen", power)),
            stopping="first",
            min_length=min(1 + number(file, found, "min_len", 1), limit),
            max_length=limit,
            extra_length=limit,  # an output's own source sets no limit
            no_repeat_ngrams=number(file, found, "no_repeat_ngram_size", 0),
            allow_unknown=True,
        )
        SearchOptions(**asdict(search))
    except (TypeError, ValueError) as error:
        raise error if isinstance(error, DataError) else DataError(f"{file}: {error}") from None
    return search
