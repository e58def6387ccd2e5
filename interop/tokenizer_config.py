"""Types of tokenizer_config.json and added_tokens.json."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from msgspec import Struct

from data.errors import DataError
from data.json_file import read_json
from interop.fields import Count, Id, read_settings

NAME = "tokenizer_config.json"
_ADDED = "added_tokens.json"  # read where tokenizer_config.json lists none, as their library does


class Added(Struct):
    """A word that is found in a text before anything else is done to it."""

    content: str
    special: bool = False  # left out of outputs
    lstrip: bool = False
    rstrip: bool = False
    single_word: bool = False


Token = str | Added


class TokenizerConfig(Struct):
    """What the importers read of it."""

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
        """The word that is `name`: "pad", "eos", "unk" or "bos"."""
        return word(getattr(self, f"{name}_token")) or default

    def listed(self) -> Iterator[tuple[str, str]]:
        """The names of the lists of further special words, and each word."""
        for name in "additional_special_tokens", "extra_special_tokens":
            tokens = getattr(self, name)
            for token in tokens.values() if isinstance(tokens, dict) else tokens:
                yield name, word(token)


def word(token: Token) -> str:
    """A special word, which may be an object with its properties."""
    return token if isinstance(token, str) else token.content


def read_tokenizer_config(folder: Path, neutral: Mapping[str, tuple]) -> TokenizerConfig:
    """The settings of a folder's tokenizer; the defaults where it has none. Raises DataError."""
    config = read_settings(folder / NAME, TokenizerConfig, neutral, {})
    if not config.added_tokens_decoder:
        ids = read_json(folder / _ADDED, dict[str, Id], {})
        special = {each for _, each in config.listed()}
        config.added_tokens_decoder = {
            id: Added(content, special=content in special) for content, id in ids.items()
        }
    return config


def added_words(file: Path, config: TokenizerConfig) -> dict[int, Added]:
    """The words that it adds, by their ids; raises DataError where they take spaces away."""
    for id, token in config.added_tokens_decoder.items():
        if token.lstrip or token.rstrip or token.single_word:
            raise DataError(f"{file}: added token {id} takes spaces away, which is not supported")
    return config.added_tokens_decoder
