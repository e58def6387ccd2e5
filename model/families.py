"""The table of model families, by the type of their configs."""

from collections.abc import Callable
from typing import Any

from model.config import TransformerConfig
from model.transformer import Transformer

FAMILIES: dict[type, Callable[[Any], Any]] = {TransformerConfig: Transformer}


def build_model(config: Any) -> Any:
    """Build the model of a config: an instance of its `Family`."""
    return FAMILIES[type(config)](config)
