"""The table of model families that can be searched, by the type of their configs."""

from collections.abc import Callable
from typing import Any

from decode.family import Generates
from decode.forward import EncoderDecoder
from model import TransformerConfig

GENERATORS: dict[type, Callable[[Any], Generates]] = {TransformerConfig: EncoderDecoder}


def make_generator(config: Any) -> Generates:
    """What search needs of the family of a config."""
    return GENERATORS[type(config)](config)
