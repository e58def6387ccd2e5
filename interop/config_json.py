"""Typed fields of Hugging Face's config.json, by model family.

The importer of a family rejects values of fields that would change the model.
"""

from pathlib import Path

from msgspec import Struct

from data.json_file import read_json
from interop.fields import Count, Epsilon, Size


class ModelType(Struct):
    """The field of every config.json."""

    model_type: str | None = None


class Bert(Struct, kw_only=True):
    """BERT, an encoder only."""

    vocab_size: Size
    num_hidden_layers: Size
    hidden_size: Size
    intermediate_size: Size
    num_attention_heads: Size
    max_position_embeddings: Size
    type_vocab_size: Size = 2
    layer_norm_eps: Epsilon = 1e-12
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1


class Bart(Struct, kw_only=True):
    """BART models, and the fields that Marian shares with them."""

    model_type: str
    vocab_size: Size
    encoder_layers: Size
    decoder_layers: Size
    d_model: Size
    encoder_ffn_dim: Size
    decoder_ffn_dim: Size
    encoder_attention_heads: Size
    decoder_attention_heads: Size
    max_position_embeddings: Size = 1024
    activation_function: str = "gelu"
    scale_embedding: bool = False
    dropout: float = 0.1
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    tokenizer_class: str = ""


class Marian(Bart, kw_only=True):
    """Marian models, whose sides may have separate vocabularies."""

    decoder_vocab_size: Size | None = None  # None: that of the source
    share_encoder_decoder_embeddings: bool = True
    tie_word_embeddings: bool = True


class T5(Struct, kw_only=True):
    """T5 and mT5."""

    model_type: str
    vocab_size: Size
    d_model: Size
    d_kv: Size
    d_ff: Size
    num_heads: Size
    num_layers: Size
    num_decoder_layers: Size | None = None  # None: num_layers
    relative_attention_num_buckets: Size = 32
    relative_attention_max_distance: Size = 128
    n_positions: Count = 512
    layer_norm_epsilon: Epsilon = 1e-6
    dropout_rate: float = 0.1
    feed_forward_proj: str | None = None  # None: the default of the family
    tie_word_embeddings: bool | None = None
    scale_decoder_outputs: bool | None = None


def family(file: Path) -> str | None:
    """Read the `model_type` of a config.json; raises DataError if it is invalid."""
    return read_json(file, ModelType).model_type
