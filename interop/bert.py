"""Import the encoder of a Hugging Face BERT.

    config, params = read_bert(folder)
    states = Transformer(config).apply({"params": params}, ids, method="encode")

`ids` [B,S] are BERT's with `[CLS]` and `[SEP]`, padded with 0; states are [B,S,D]. All tokens have
the first type (a single sentence), whose embedding is added to that of the positions.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.errors import DataError
from interop import imported_model
from interop.config_json import Bert
from interop.fields import read_settings
from interop.hf_param_names import HFParamName
from interop.tensor_files import read_tensors
from model import ConfigError, TransformerConfig

_NEUTRAL: dict[str, tuple] = {
    "model_type": ("bert",),
    "hidden_act": ("gelu", "relu"),
    "position_embedding_type": ("absolute",),
    "pad_token_id": (0,),
    "is_decoder": (False,),
    "quantization_config": (),
}
_NORMS = {"attention.output": "attention_residual", "output": "feed_forward_residual"}
_PRODUCTS = {
    "attention.self.query": ("attention", "query", 1),
    "attention.self.key": ("attention", "key", 1),
    "attention.self.value": ("attention", "value", 1),
    "attention.output.dense": ("attention", "out", 2),
}


def read_bert(folder: Path) -> tuple[TransformerConfig, dict[str, Any]]:
    """Import a BERT encoder: its config and parameters, without a decoder.

    Raises DataError for missing, corrupt or unsupported files and fields, naming them.
    """
    file = folder / "config.json"
    config = read_settings(file, Bert, _NEUTRAL)
    try:
        model = TransformerConfig(
            vocab_size=config.vocab_size,
            encoder_layers=config.num_hidden_layers,
            d_model=config.hidden_size,
            d_ff=config.intermediate_size,
            num_heads=config.num_attention_heads,
            norm_epsilon=config.layer_norm_eps,
            embedding_norm=True,
            positions="learned",
            max_length=config.max_position_embeddings,
            activation=config.hidden_act,
            attention_bias=True,
            scale_embedding=False,
            dropout=config.hidden_dropout_prob,
            attention_dropout=config.attention_probs_dropout_prob,
        )
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None
    weights, tensors = read_tensors(folder)
    imported_model.check_sizes(file, model, *imported_model.count(tensors))
    tensors = {name.removeprefix("bert."): x for name, x in tensors.items()}
    arrays = imported_model.TensorReader(weights, tensors, "config.json")
    params = imported_model.layer_params(model, _names(model.encoder_layers), arrays)
    width = model.d_model
    words = arrays.read((model.vocab_size, width), "embeddings.word_embeddings.weight")
    positions = arrays.read((model.max_length, width), "embeddings.position_embeddings.weight")
    types = arrays.read((config.type_vocab_size, width), "embeddings.token_type_embeddings.weight")
    params["embedding"] = {"table": words}
    params["source_positions"] = {"table": positions + types[:1]}
    return model, params


def _names(layers: int) -> Iterator[HFParamName]:
    for their_name, name in ("weight", "scale"), ("bias", "bias"):
        yield HFParamName(f"embeddings.LayerNorm.{their_name}", ("source_embedding_norm", name), 0)
    for i in range(layers):
        layer, heed_layer = f"encoder.layer.{i}", f"encoder_{i}"
        for their_name, (part, name, inputs) in _PRODUCTS.items():
            yield HFParamName(f"{layer}.{their_name}.weight", (heed_layer, part, name), inputs)
            yield HFParamName(f"{layer}.{their_name}.bias", (heed_layer, part, f"{name}_bias"), 0)
        for their_name, name in ("intermediate", "hidden"), ("output", "out"):
            yield HFParamName(
                f"{layer}.{their_name}.dense.weight",
                (heed_layer, "feed_forward", name, "kernel"),
                1,
            )
            yield HFParamName(
                f"{layer}.{their_name}.dense.bias", (heed_layer, "feed_forward", name, "bias"), 0
            )
        for their_name, residual in _NORMS.items():
            for suffix, name in ("weight", "scale"), ("bias", "bias"):
                yield HFParamName(
                    f"{layer}.{their_name}.LayerNorm.{suffix}",
                    (heed_layer, residual, "norm", name),
                    0,
                )
