"""Typed fields of tokenizer_config.json and added_tokens.json."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from data.errors import DataError
from data.json_file import read_json
from interop.fields import Count, Id, read_settings

NAME = "tokenizer_config.json"
_ADDED = "added_tokens.json"  # read if tokenizer_config.json lists none, as in transformers


class Added(Struct):
    """An added token, matched in a text before tokenization."""

    content: str
    special: bool = False  # omitted from outputs
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


Token = str | Added


class TokenizerConfig(Struct):
    """Fields of tokenizer_config.json that the importers read."""

    tokenizer_class: str = ""
    source_lang: str = ""
    target_lang: str = ""
    src_lang: str = ""
    tgt_lang: str = ""
    pad_token: Token = ""
    eos_token: Token = ""
    unk_token: Token = ""
    bos_token: Token = ""
    added_tokens_decoder: dict[Id, Added] = {}
    additional_special_tokens: list[Token] = []
    extra_special_tokens: list[Token] | dict[str, Token] = []
    clean_up_tokenization_spaces: bool = False
    separate_vocabs: bool = False
    extra_ids: Count = 100

    def mark(self, name: str, default: str) -> str:
        """The special token `name`: "pad", "eos", "unk" or "bos"."""
        return word(getattr(self, f"{name}_token")) or default

    def listed(self) -> Iterator[tuple[str, str]]:
        """Further special tokens: the name of the list, and the token."""
        for name in "additional_special_tokens", "extra_special_tokens":
            tokens = getattr(self, name)
            for token in tokens.values() if isinstance(tokens, dict) else tokens:
                yield name, word(token)


def word(token: Token) -> str:
    """The text of a special token, which may be an object with properties."""
    return token if isinstance(token, str) else token.content


def read_tokenizer_config(folder: Path, neutral: Mapping[str, tuple]) -> TokenizerConfig:
    """Read a folder's tokenizer settings, or defaults if it has none. Raises DataError."""
    config = read_settings(folder / NAME, TokenizerConfig, neutral, {})
    if not config.added_tokens_decoder:
        ids = read_json(folder / _ADDED, dict[str, Id], {})
        special = {listed for _, listed in config.listed()}
        config.added_tokens_decoder = {
            id: Added(content, special=content in special) for content, id in ids.items()
        }
    return config


def added_words(file: Path, config: TokenizerConfig) -> dict[int, Added]:
    """Added tokens by their ids; raises DataError if they strip spaces."""
    for id, token in config.added_tokens_decoder.items():
        if token.lstrip or token.rstrip or token.single_word:
            raise DataError(f"{file}: added token {id} strips spaces, which is not supported")
    return config.added_tokens_decoder
