"""Import a Hugging Face T5 model.

Ids are shifted by one: T5's padding, with which decoder inputs start, becomes BOS, followed by its
EOS and UNK, then all others; Heed's PAD is an additional id, as in Marian models. Two factors are
folded into weights: T5 does not divide scores by sqrt(d_k), so queries are multiplied by it; if
outputs are scaled by d_model^-0.5, the decoder's last norm is scaled instead.
"""

import reprlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data.errors import DataError
from experiments.config import DataConfig, Experiment
from interop import imported_model
from interop.config_json import T5, family
from interop.fields import read_object, read_settings, reject_unsupported
from interop.generation_config import read_generation, search_settings
from interop.imported_model import ImportedModel, TensorReader
from interop.t5_param_names import names
from interop.t5_vocabulary import read_vocabulary
from interop.tensor_files import read_tensors
from model import ConfigError, TransformerConfig

# By feed_forward_proj; "gated-gelu" is the tanh form, as in Hugging Face's class.
ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "silu": "silu",
    "gated-relu": "reglu",
    "gated-gelu": "geglu_tanh",
    "gated-gelu_new": "geglu_tanh",
    "gated-silu": "swiglu",
}
Tying = Literal["all", "decoder", "none"]
PROJECTIONS = {"t5": "relu", "mt5": "gated-gelu"}  # defaults if config.json has none
_NEUTRAL: dict[str, tuple] = {
    "pad_token_id": (0,),
    "eos_token_id": (1, [1]),
    "decoder_start_token_id": (0,),
    "is_encoder_decoder": (True,),
    "is_decoder": (False,),
    "quantization_config": (),
}
# Tensors that may hold a table, in Hugging Face's order: a tied table may be saved under any single
# one of these names.
_NAMES = [f"{name}.weight" for name in
          ("encoder.embed_tokens", "decoder.embed_tokens", "lm_head", "shared")]  # fmt: skip
_ENCODER, _DECODER, _HEAD, _SHARED = _NAMES
_TABLES = {
    "source": (_ENCODER, _SHARED, _DECODER, _HEAD),
    "target": (_DECODER, _SHARED, _ENCODER, _HEAD),
    "output": (_HEAD, _SHARED, _ENCODER, _DECODER),
}


def read_t5(folder: Path, source_language: str = "", target_language: str = "") -> ImportedModel:
    """Import a folder's model, which does not name its languages.

    Raises DataError for missing, corrupt or unsupported files and fields, naming them.
    """
    file = folder / "config.json"
    config = read_config(file)
    weights, tensors = read_tensors(folder)
    model = model_config(file, config, tying(tensors))
    imported_model.check_sizes(file, model, *imported_model.count(tensors))
    vocabulary = read_vocabulary(folder, model.vocab_size - 1)
    search = search_settings(
        *read_generation(folder), pad=0, eos=1, unknown=2, positions=config.n_positions or 512
    )
    data = DataConfig(
        kind="text",
        source_language=source_language or "source",
        target_language=target_language or "target",
        vocab_size=model.vocab_size,
        shared_vocab=True,
    )
    experiment = Experiment(model=model, data=data, search=search)
    arrays = TensorReader(weights, tensors, "config.json")
    return ImportedModel(experiment, vocabulary, params(model, arrays, _scales_outputs(config)))


def read_config(file: Path) -> T5:
    """Read a config.json; raises DataError, naming unsupported fields."""
    model_type = family(file)
    if model_type not in PROJECTIONS:
        choices = " or ".join(map(repr, PROJECTIONS))
        raise DataError(
            f"{file}: model_type={reprlib.repr(model_type)} is not supported, only {choices}"
        )
    config = read_settings(file, T5, _NEUTRAL)
    projection = config.feed_forward_proj = config.feed_forward_proj or PROJECTIONS[model_type]
    if projection not in ACTIVATIONS:
        choices = ", ".join(ACTIVATIONS)
        raise DataError(
            f"{file}: feed_forward_proj={reprlib.repr(projection)} is not supported, only {choices}"
        )
    *gated, function = projection.split("-")
    derived = {
        "is_gated_act": (bool(gated),),
        "dense_act_fn": ("gelu_new" if projection == "gated-gelu" else function,),
        "scale_decoder_outputs": (True, False) if model_type == "t5" else (False,),
    }
    reject_unsupported(file, read_object(file), derived)
    return config


def model_config(file: Path, config: T5, tying: Tying = "all") -> TransformerConfig:
    """Convert a config.json to a TransformerConfig; raises DataError for unsupported fields."""
    try:
        return TransformerConfig(
            vocab_size=config.vocab_size + 1,
            encoder_layers=config.num_layers,
            decoder_layers=config.num_decoder_layers or config.num_layers,
            d_model=config.d_model,
            d_ff=config.d_ff,
            num_heads=config.num_heads,
            d_k=config.d_kv,
            d_v=config.d_kv,
            norm="pre",
            norm_kind="rms",
            norm_epsilon=config.layer_norm_epsilon,
            positions="t5_bias",
            relative_num_buckets=config.relative_attention_num_buckets,
            relative_max_distance=config.relative_attention_max_distance,
            activation=ACTIVATIONS[config.feed_forward_proj or ""],
            mlp_bias=False,
            tying=tying,
            scale_embedding=False,
            output_bias=True,
            dropout=config.dropout_rate,
            attention_dropout=config.dropout_rate,
            mlp_dropout=config.dropout_rate,
        )
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None


def _scales_outputs(config: T5) -> bool:
    """Whether outputs are scaled by d_model^-0.5 before the output projection: T5 1.0, not 1.1."""
    if config.scale_decoder_outputs is not None:
        return config.scale_decoder_outputs
    return config.model_type == "t5" and config.tie_word_embeddings is not False


def tying(tensors: dict[str, np.ndarray]) -> Tying:
    """Which embedding tables are tied: those that are equal in the file."""
    tables = [
        next((tensors[name] for name in names if name in tensors), np.empty(0))
        for names in _TABLES.values()
    ]
    equal = [a is b or np.array_equal(a, b) for a, b in zip(tables, tables[1:], strict=False)]
    return "all" if all(equal) else "decoder" if equal[1] else "none"


def params(c: TransformerConfig, arrays: TensorReader, scales_outputs: bool) -> dict[str, Any]:
    """Convert the parameters of `c`; raises DataError for missing or misshapen tensors."""
    order = np.arange(-1, c.vocab_size - 1)
    order[0] = 0
    tables = _TABLES | {"all": (_SHARED, _ENCODER, _DECODER, _HEAD)}

    bias = np.zeros(c.vocab_size - 1, np.float32)
    result = imported_model.layer_params(c, names(c), arrays) | imported_model.embedding_params(
        c, [order] * 2, 1, arrays.table_reader(tables), bias
    )
    for side in "encoder", "decoder":
        name = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        shape = c.relative_num_buckets, c.num_heads
        result[f"{side}_bias"] = {"table": arrays.read(shape, name)}
        for i in range(getattr(c, f"{side}_layers")):
            layer = result[f"{side}_{i}"]
            for module in {"attention", "self_attention", "cross_attention"} & set(layer):
                layer[module]["query"] = layer[module]["query"] * np.float32(c.key_width**0.5)
    if scales_outputs:
        norm = result["decoder_norm"]
        norm["scale"] = norm["scale"] * np.float32(c.d_model**-0.5)
    return result
