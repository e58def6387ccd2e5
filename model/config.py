"""TransformerConfig: sizes and switches of the Transformer; the paper's configurations (Table 3).

The defaults are exactly the paper's base model. All settings are static: known before any array
exists. What changes from call to call (training or not, cached or not) is an argument instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, get_args, get_origin, get_type_hints

from model.activations import ACTIVATIONS
from model.mixers import MIXERS, Recurrence
from model.norm import NORMS
from model.positions import POSITIONS
from model.residual import RESIDUALS

# Each row of a table is a value of its setting.
_TABLES: dict[str, Mapping[str, object]] = {
    "activation": ACTIVATIONS,
    "norm": RESIDUALS,
    "norm_kind": NORMS,
    "positions": POSITIONS,
    "decoder_mixer": MIXERS,
}


class ConfigError(ValueError):
    """An invalid setting; the message is one line with the setting and a remedy."""


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes and switches of one Transformer; frozen, hashable, validated on creation."""

    vocab_size: int = 37_000  # V; of the source, and of the target unless set separately
    target_vocab_size: int | None = None  # None: source and target share one vocabulary
    encoder_layers: int = 6  # N
    decoder_layers: int = 6
    d_model: int = 512  # D
    d_ff: int = 2048  # F
    num_heads: int = 8  # H
    num_kv_heads: int | None = None  # None: H; fewer: key/value heads shared by groups
    d_k: int | None = None  # width of a head's queries and keys; None: D / H
    d_v: int | None = None  # width of a head's values; None: D / H
    norm: str = "post"  # a row of model/residual.py: post, pre
    norm_kind: str = "layer"  # a row of model/norm.py: layer, rms
    norm_epsilon: float = 1e-6
    embedding_norm: bool = False  # normalize embedding plus position, before dropout, as in BART
    positions: str = "sinusoidal"  # a row of model/positions.py
    position_offset: int = 0  # the number of a sinusoidal model's first position
    max_length: int = 1024  # rows of the learned position table; other kinds have no limit
    relative_num_buckets: int = 32  # rows of the bias table: model/relative_position_bias.py
    relative_max_distance: int = 128  # this and longer distances share one bucket
    activation: str = "relu"  # a row of model/activations.py
    attention_bias: bool = False
    mlp_bias: bool = True
    decoder_mixer: str = "attention"  # or a row of model/mixers.py: ssru
    tying: Literal["all", "decoder", "none"] = "all"  # source, target and output; last two; none
    scale_embedding: bool = True  # multiply input embeddings by sqrt(D) (3.4)
    output_bias: bool = False  # added to the logits
    dropout: float = 0.1  # on each sub-layer's output and on embedding plus position
    attention_dropout: float = 0.0  # on attention weights
    mlp_dropout: float = 0.0  # on the feed-forward's hidden layer
    dropout_bits: Literal[16, 32] = 16  # random bits per entry: model/dropout.py
    transpose_down_projection: bool = True  # in the feed-forward layer: model/layers.py
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"  # activations; parameters: float32
    attention_kernel: Literal["auto", "plain", "short", "splash", "cudnn"] = "auto"  # docs/speed.md
    remat: Literal["none", "dots", "full"] = "none"  # recompute in backward: all but products, all
    scan_layers: bool = False  # one compiled layer, scanned, instead of N unrolled copies

    def __post_init__(self):
        for name, kind in get_type_hints(type(self)).items():
            value = getattr(self, name)
            if get_origin(kind) is Literal and value not in get_args(kind):
                options = ", ".join(map(str, get_args(kind)))
                raise ConfigError(f"model.{name}={value!r} is not one of: {options}")
        for name, choices in _TABLES.items():
            value = getattr(self, name)
            if value not in choices:
                options = ", ".join(choices)
                raise ConfigError(f"model.{name}={value!r} is not one of: {options}")
        for field in fields(self):
            value = getattr(self, field.name)
            minimum = 0 if field.name == "position_offset" else 1
            if field.type in (int, int | None) and value is not None and value < minimum:
                raise ConfigError(f"model.{field.name}={value} must be at least {minimum}")
            if field.name.endswith("dropout") and not 0 <= value < 1:
                raise ConfigError(f"model.{field.name}={value} must be in [0, 1)")
        if self.norm_epsilon <= 0:
            raise ConfigError(f"model.norm_epsilon={self.norm_epsilon} must be above 0")
        if self.d_model % self.num_heads and None in (self.d_k, self.d_v):
            raise ConfigError(
                f"model.d_model={self.d_model} is not a multiple of model.num_heads="
                f"{self.num_heads}: change one, or set model.d_k and model.d_v"
            )
        if self.num_heads % self.kv_heads:
            raise ConfigError(
                f"model.num_kv_heads={self.kv_heads} must divide model.num_heads={self.num_heads}"
            )
        kind = POSITIONS[self.positions]
        if self.d_model % 2 and kind.encode:
            raise ConfigError(f"model.d_model={self.d_model} must be even for sinusoids")
        if self.position_offset and not kind.encode:
            raise ConfigError(
                f"model.position_offset={self.position_offset} is for sinusoids: leave it out with "
                f"model.positions={self.positions}"
            )
        if self.key_width % 2 and kind.rotate:
            raise ConfigError(f"model.d_k={self.key_width} must be even for rotary positions")
        if (kind.rotate or kind.bias) and self.recurrence:
            operation = "rotate" if kind.rotate else "measure distances to"
            raise ConfigError(
                f"model.decoder_mixer={self.decoder_mixer} has no keys to {operation}: set "
                f"model.positions to another kind than {self.positions}"
            )
        if self.relative_num_buckets % 2 or self.relative_num_buckets < 4:
            raise ConfigError(
                f"model.relative_num_buckets={self.relative_num_buckets} must be even and at least "
                "4"
            )
        if self.relative_max_distance <= self.relative_num_buckets // 2:
            raise ConfigError(
                f"model.relative_max_distance={self.relative_max_distance} must be more than half "
                f"of model.relative_num_buckets={self.relative_num_buckets}"
            )
        if self.tying == "all" and self.target_vocab != self.vocab_size:
            raise ConfigError(
                f"model.tying=all needs one vocabulary, but source and target have "
                f"{self.vocab_size} and {self.target_vocab} entries: set model.tying=decoder"
            )

    @property
    def kv_heads(self) -> int:
        return self.num_kv_heads or self.num_heads

    @property
    def key_width(self) -> int:
        return self.d_k or self.d_model // self.num_heads

    @property
    def value_width(self) -> int:
        return self.d_v or self.d_model // self.num_heads

    @property
    def target_vocab(self) -> int:
        return self.target_vocab_size or self.vocab_size

    @property
    def recurrence(self) -> Recurrence | None:
        """The recurrence that replaces the decoder's self-attention, if any."""
        return MIXERS[self.decoder_mixer]

    @property
    def embedding_scale(self) -> float:
        return self.d_model**0.5 if self.scale_embedding else 1.0

    @property
    def max_positions(self) -> int | None:
        """The number of positions; None: unlimited."""
        return self.max_length if POSITIONS[self.positions].table else None


BASE = TransformerConfig()
BIG = replace(BASE, d_model=1024, d_ff=4096, num_heads=16, dropout=0.3)


def _base(**changes) -> TransformerConfig:
    return replace(BASE, **changes)


def _layers(n: int) -> TransformerConfig:
    return _base(encoder_layers=n, decoder_layers=n)


# Every row of the paper's Table 3, in order. The last two of row D vary the label smoothing, a
# training setting, not one of the model: LABEL_SMOOTHING below has their values.
TABLE3: dict[str, TransformerConfig] = {
    "base": BASE,
    "A1": _base(num_heads=1, d_k=512, d_v=512),
    "A2": _base(num_heads=4, d_k=128, d_v=128),
    "A3": _base(num_heads=16, d_k=32, d_v=32),
    "A4": _base(num_heads=32, d_k=16, d_v=16),
    "B1": _base(d_k=16),
    "B2": _base(d_k=32),
    "C1": _layers(2),
    "C2": _layers(4),
    "C3": _layers(8),
    "C4": _base(d_model=256, d_k=32, d_v=32),
    "C5": _base(d_model=1024, d_k=128, d_v=128),
    "C6": _base(d_ff=1024),
    "C7": _base(d_ff=4096),
    "D1": _base(dropout=0.0),
    "D2": _base(dropout=0.2),
    "D3": BASE,
    "D4": BASE,
    "E": _base(positions="learned"),
    "big": BIG,
}
LABEL_SMOOTHING = {"D3": 0.0, "D4": 0.2}  # 0.1 everywhere else
