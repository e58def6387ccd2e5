"""Model families that can be searched, by config type."""

from collections.abc import Callable
from typing import Any

from decode.family import Generates
from decode.forward import EncoderDecoder
from model import TransformerConfig

GENERATORS: dict[type, Callable[[Any], Generates]] = {TransformerConfig: EncoderDecoder}


def make_generator(config: Any) -> Generates:
    """Create the `Generates` of a config, by its type."""
    return GENERATORS[type(config)](config)
