"""The Transformer of "Attention Is All You Need": arrays in, arrays out."""

from model.config import BASE, BIG, TABLE3, ConfigError, TransformerConfig
from model.transformer import Transformer, init_cache

__all__ = [
    "BASE",
    "BIG",
    "TABLE3",
    "ConfigError",
    "Transformer",
    "TransformerConfig",
    "init_cache",
]
