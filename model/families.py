"""The table of model families, by the type of their configs."""

from collections.abc import Callable
from typing import Any

from model.config import TransformerConfig
from model.family import Family
from model.transformer import Transformer

FAMILIES: dict[type, Callable[[Any], Family]] = {TransformerConfig: Transformer}


def build_model(config: Any) -> Family:
    """Build the model of a config: an instance of its family."""
    return FAMILIES[type(config)](config)
