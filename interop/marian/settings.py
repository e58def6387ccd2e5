"""Settings of model and search in Marian's YAML files."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from data.yaml_file import decode_yaml, read_yaml

Size = Annotated[int, Meta(ge=0, lt=1 << 31)]
Text = Annotated[str, Meta(max_length=1000)]
Factor = Annotated[float, Meta(ge=-1e6, le=1e6)]


class _Model(msgspec.Struct, rename="kebab", omit_defaults=True):
    """Model settings that the importer reads; Marian writes a hundred more."""

    type: Text | None = None
    right_left: bool | None = None
    ulr: bool | None = None
    dim_vocabs: list[Size] | None = None
    dim_emb: Size | None = None
    enc_depth: Size | None = None
    dec_depth: Size | None = None
    dec_cell: Text | None = None
    layer_normalization: bool | None = None
    lemma_dim_emb: Size | None = None
    factors_dim_emb: Size | None = None
    output_omit_bias: bool | None = None
    tied_embeddings: bool | None = None
    tied_embeddings_all: bool | None = None
    tied_embeddings_src: bool | None = None
    transformer_decoder_autoreg: Text | None = None
    transformer_dim_ffn: Size | None = None
    transformer_ffn_activation: Text | None = None
    transformer_ffn_depth: Size | None = None
    transformer_heads: Size | None = None
    transformer_no_affine: bool | None = None
    transformer_no_bias: bool | None = None
    transformer_no_projection: bool | None = None
    transformer_pool: bool | None = None
    transformer_postprocess: Text | None = None
    transformer_postprocess_emb: Text | None = None
    transformer_postprocess_top: Text | None = None
    transformer_preprocess: Text | None = None
    transformer_rnn_projection: bool | None = None
    transformer_tied_layers: list[Size] | None = None
    transformer_train_position_embeddings: bool | None = None
    transformer_train_positions: bool | None = None


class Decoder(msgspec.Struct, rename="kebab"):
    """Fields of a decoder config."""

    models: list[Text]
    vocabs: list[Text]
    shortlist: list[Text | float | bool] | None = None  # a file name, and numbers
    beam_size: Size | None = None
    normalize: Factor | bool | None = None
    word_penalty: Factor | None = None
    allow_unk: bool | None = None


def model_settings(file: Path, text: bytes) -> dict[str, Any]:
    """Parse a model's settings by Marian's names, without unset ones.

    Raises DataError, naming the setting, for a wrong type.
    """
    return msgspec.to_builtins(decode_yaml(text, _Model, str(file)))


def decoder_settings(file: Path) -> Decoder | None:
    """Read a decoder config; None if the file is a vocabulary. Raises DataError."""
    fields = read_yaml(file, dict[str, Any])
    # A vocabulary may contain these words too, with numbers as values.
    values = [fields.get(key) for key in ("models", "vocabs")]
    if any(value is None or isinstance(value, str) and value.isdecimal() for value in values):
        return None
    return read_yaml(file, Decoder)
