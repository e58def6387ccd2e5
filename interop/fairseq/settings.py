"""Settings of model and search in a fairseq checkpoint.

Older checkpoints have all settings in a flat list, `args`; newer ones have a tree, `cfg`, whose
`model` is such a list or has subtrees. Both become one flat list with the names of `args`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from data.errors import DataError
from data.json_file import convert
from experiments.config import SearchConfig
from interop.fields import name_settings, read_int, reject_unsupported
from model import ConfigError

_NAMES = {  # of SearchConfig's fields in fairseq
    "beam_size": "beam",
    "alpha": "lenpen",
    "min_length": "min_len",
    "max_length": "max_len_b",
    "no_repeat_ngrams": "no_repeat_ngram_size",
}
_DEFAULTS = 5, 1.0, 200  # defaults of beam, lenpen and max_len_b in fairseq-generate
_SEARCH: dict[str, tuple] = {  # other settings, and their values that have no effect
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


Size = Annotated[int, Meta(ge=0, lt=1 << 31)]
Text = Annotated[str, Meta(max_length=1000)]
Factor = Annotated[float, Meta(ge=-1e6, le=1e6)]
_NODES, _DEPTH = 100_000, 50  # limits on settings; real ones have 1000 nodes, at depth 5


class _Model(msgspec.Struct, omit_defaults=True):
    """Model and task settings that the importer reads."""

    activation_dropout: Factor | None = None
    activation_fn: Text | None = None
    adaptive_input: bool | None = None
    adaptive_softmax_cutoff: Text | list[Size] | None = None
    arch: Text | None = None
    attention_dropout: Factor | None = None
    base_layers: Size | None = None
    bpe: Text | None = None
    bpe_codes: Text | None = None
    cross_self_attention: bool | None = None
    data: Text | None = None
    decoder_attention_heads: Size | None = None
    decoder_embed_dim: Size | None = None
    decoder_ffn_embed_dim: Size | None = None
    decoder_input_dim: Size | None = None
    decoder_layers: Size | None = None
    decoder_layers_to_keep: Text | list[Size] | None = None
    decoder_learned_pos: bool | None = None
    decoder_normalize_before: bool | None = None
    decoder_output_dim: Size | None = None
    dropout: Factor | None = None
    encoder_attention_heads: Size | None = None
    encoder_embed_dim: Size | None = None
    encoder_ffn_embed_dim: Size | None = None
    encoder_layers: Size | None = None
    encoder_layers_to_keep: Text | list[Size] | None = None
    encoder_learned_pos: bool | None = None
    encoder_normalize_before: bool | None = None
    layernorm_embedding: bool | None = None
    max_source_positions: Size | None = None
    max_target_positions: Size | None = None
    no_cross_attention: bool | None = None
    no_decoder_final_norm: bool | None = None
    no_scale_embedding: bool | None = None
    no_token_positional_embeddings: bool | None = None
    quant_noise_scalar: Factor | None = None
    relu_dropout: Factor | None = None
    scale_attn: bool | None = None
    scale_fc: bool | None = None
    scale_heads: bool | None = None
    scale_resids: bool | None = None
    share_all_embeddings: bool | None = None
    share_decoder_input_output_embed: bool | None = None
    source_lang: Text | None = None
    target_lang: Text | None = None
    task: Text | None = None
    tokenizer: Text | None = None


class _Search(msgspec.Struct, omit_defaults=True):
    """Search settings that the importer reads."""

    beam: Size | None = None
    constraints: Text | bool | None = None
    diverse_beam_groups: int | None = None
    diversity_rate: Factor | None = None
    lenpen: Factor | None = None
    lm_path: Text | None = None
    match_source_len: bool | None = None
    max_len_a: Factor | None = None
    max_len_b: Size | None = None
    min_len: Size | None = None
    no_repeat_ngram_size: Size | None = None
    prefix_size: Size | None = None
    replace_unk: Text | bool | None = None
    retain_dropout: bool | None = None
    sampling: bool | None = None
    temperature: Factor | None = None
    unkpen: Factor | None = None
    unnormalized: bool | None = None


def read_settings(file: Path, content: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read the settings of the model and its task, and of the search, without unset ones.

    `content` is that of the checkpoint. Raises DataError if it is not a checkpoint, or, naming the
    setting, for a wrong type.
    """
    content = content if isinstance(content, Mapping) else {}
    if not isinstance(content.get("model"), Mapping):
        raise DataError(f"{file} is not a checkpoint of fairseq: it has no weights named 'model'")
    cfg = _unwrap(file, content.get("cfg"))
    cfg = cfg if isinstance(cfg, Mapping) else {}  # None in older checkpoints
    model = cfg.get("model") if cfg else _unwrap(file, content.get("args"))
    if not isinstance(model, Mapping) or not model:
        raise DataError(f"{file} is not a checkpoint of fairseq: it has neither 'cfg' nor 'args'")
    task = cfg.get("task")
    task = task if isinstance(task, Mapping) else {}
    settings = {name: value for name, value in task.items() if value is not None} | dict(model)
    for side in "encoder", "decoder":
        if isinstance(model.get(side), Mapping):
            settings |= {f"{side}_{name}": value for name, value in model[side].items()}
    for name in "source_lang", "target_lang", "data":
        settings[name] = settings.get(name) or task.get(name)
    settings["arch"] = model.get("arch") or model.get("_name")
    for name in "task", "bpe", "tokenizer":
        # Each is a tree, or a name if it has no settings.
        value = cfg.get(name) or model.get(name)
        settings[name] = value.get("_name") if isinstance(value, Mapping) else value
        if isinstance(value, Mapping) and name == "bpe":
            settings |= {key: item for key, item in value.items() if key != "_name"}
    generation = cfg.get("generation")
    generation = generation if isinstance(generation, Mapping) else {}
    return _typed(file, settings, _Model), _typed(file, generation, _Search)


def _typed(file: Path, settings: Mapping, struct: type[msgspec.Struct]) -> dict[str, Any]:
    fields = {name: settings[name] for name in struct.__struct_fields__ if name in settings}
    return msgspec.to_builtins(convert(fields, struct, str(file), strict=False))


def _unwrap(file: Path, value: Any) -> Any:
    """Unwrap OmegaConf's nodes in settings.

    Raises DataError for recursive or excessively repeated settings.
    """
    remaining = _NODES

    def unwrap(value: Any, depth: int) -> Any:
        nonlocal remaining
        remaining -= 1
        if remaining < 0 or depth > _DEPTH:
            raise DataError(f"{file}: its settings are too large, or recursive")
        if not isinstance(value, Mapping):
            return value
        for name in "_content", "_val":
            if name in value:
                return unwrap(value[name], depth + 1)
        return {name: unwrap(item, depth + 1) for name, item in value.items()}

    return unwrap(value, 0)


def search_settings(file: Path, settings: Mapping[str, Any], max_positions: int) -> SearchConfig:
    """Convert the search of fairseq-generate to a SearchConfig; raises DataError, naming the field.

    `max_positions` is the model's number of output positions.
    """
    reject_unsupported(file, settings, _SEARCH)
    beam, power, limit = _DEFAULTS
    # fairseq's limit excludes EOS.
    limit = 1 + min(read_int(file, settings, "max_len_b", limit), max_positions - 1)
    try:
        search = SearchConfig(
            beam_size=read_int(file, settings, "beam", beam),
            penalty="none" if settings.get("unnormalized") else "average",
            alpha=0.0 if settings.get("unnormalized") else float(settings.get("lenpen", power)),
            stopping="full",
            min_length=min(1 + read_int(file, settings, "min_len", 1), limit),
            max_length=limit,
            max_length_offset=limit,  # no limit relative to the source
            no_repeat_ngrams=read_int(file, settings, "no_repeat_ngram_size", 0),
            allow_unknown=True,
        )
    except ConfigError as error:
        raise DataError(f"{file}: {name_settings(error, _NAMES)}") from None
    return search
