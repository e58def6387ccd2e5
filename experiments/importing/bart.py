"""Hugging Face folders of BART and its kin: mBART-50, and M2M-100's architecture, which NLLB has.

Outputs begin with the word that ends them: BOS, which is an id of its own here, has the same
embedding, and is never said. All other ids keep what they have, the padding too: only their order
is Heed's. What texts begin with, a language's code or BART's `<s>`, is the tokenizer's; where the
settings force it, outputs begin with it at no cost.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.batch import BOS
from data.corpus import DataError
from data.fast import FastTokenizer
from data.tokenizer import Vocabulary
from experiments.config import DataConfig, Experiment, nearest
from experiments.importing import parts
from experiments.importing.fields import number, read_bytes, read_json, refuse_others, word_of
from experiments.importing.generation import find_search, search_settings
from experiments.importing.huggingface import shared_settings
from experiments.importing.names import around, names
from experiments.importing.parts import Imported
from experiments.importing.tensors import read_tensors
from model import ConfigError, TransformerConfig


class _Kind(NamedTuple):
    """One model_type: what it is without a word in config.json, and how texts begin."""

    model: dict[str, Any]
    neutral: dict[str, tuple]
    tokenizers: tuple[str, ...]
    codes: bool  # texts begin with their language's code, not with their `<s>`
    cleans: bool = False  # outputs' spaces, where the tokenizer's settings say so


_LEARNED = {"positions": "learned", "embedding_norm": True}
_BOTH = {"is_encoder_decoder": (True,), "quantization_config": ()}
_NORMALISED = {"normalize_embedding": (True,), "static_position_embeddings": (False,)}
KINDS = {
    "bart": _Kind(
        {"norm": "post", **_LEARNED},
        _BOTH | _NORMALISED | {"normalize_before": (False,), "add_final_layer_norm": (False,)},
        ("BartTokenizer", "BartTokenizerFast", "RobertaTokenizer", "RobertaTokenizerFast"),
        False,
    ),
    "mbart": _Kind(
        {"norm": "pre", **_LEARNED},
        _BOTH | _NORMALISED | {"normalize_before": (True,), "add_final_layer_norm": (True,)},
        ("MBart50Tokenizer", "MBart50TokenizerFast"),
        True,
        True,
    ),
    "m2m_100": _Kind(
        {"norm": "pre", "positions": "sinusoidal_tensor2tensor", "first_position": 2},
        _BOTH,
        ("NllbTokenizer", "NllbTokenizerFast"),
        True,
    ),
}


def read_bart(folder: Path, source_language: str = "", target_language: str = "") -> Imported:
    """The model of a folder; languages that are given replace those that it names.

    Raises DataError for what is missing, damaged or not supported, with file and field.
    """
    file = folder / "config.json"
    config = read_json(file)
    kind = KINDS[config["model_type"]]
    model = model_config(file, config, kind)
    named = read_json(folder / "tokenizer_config.json", {})
    languages = [
        given or named.get(f"{short}_lang") or ""
        for given, short in ((source_language, "src"), (target_language, "tgt"))
    ]
    vocabulary, order = read_vocabulary(folder, config, kind, languages)
    where = find_search(folder, config)
    pad, eos, _, unknown = order[:4]
    search = search_settings(
        *where,
        pad=pad,
        eos=eos,
        unknown=unknown,
        start=eos,
        forces=True,
        positions=number(file, config, "max_position_embeddings", 1024),
    )
    forced = where[1].get("forced_bos_token_id")
    first = vocabulary.target.prefix[0] if kind.codes else 0
    if forced is not None:
        found = _ours(where[0], forced, order)
        if kind.codes and found != first:
            (word,) = vocabulary.target.pieces([found])
            raise DataError(f"{where[0]}: outputs begin with {word!r}: --target_language={word}")
        first = found
    data = DataConfig(
        source="text",
        source_language=languages[0] or "source",
        target_language=languages[1] or "target",
        vocab_size=vocabulary.source.vocab_size,
        max_length=min(DataConfig.max_length, model.longest or DataConfig.max_length),
    )
    experiment = Experiment(model=model, data=data, search=replace(search, first=first))
    return Imported(experiment, vocabulary, _params(folder, model, np.array(order)))


def model_config(file: Path, config: dict[str, Any], kind: _Kind) -> TransformerConfig:
    """The model of a config.json; raises DataError, naming the field, for what is not here."""
    refuse_others(file, config, kind.neutral)
    refuse_others(file, config, {"tie_word_embeddings": (True,)})
    try:
        return TransformerConfig(
            vocab_size=number(file, config, "vocab_size") + 1,
            max_length=number(file, config, "max_position_embeddings", 1024),
            **shared_settings(file, config),
            **kind.model,
        )
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None


def read_vocabulary(
    folder: Path, config: dict[str, Any], kind: _Kind, languages: Sequence[str]
) -> tuple[Vocabulary, list[int]]:
    """Both sides, and the order of the ids there in which ours are.

    Raises DataError for files that are missing or do not go together, and for a missing language.
    """
    file = folder / "tokenizer_config.json"
    settings = read_json(file, {})
    kinds = {"tokenizer_class": kind.tokenizers}
    refuse_others(file, settings, kinds | {"legacy_behaviour": (False,)})
    refuse_others(folder / "config.json", config, kinds)
    if kind.codes and not (settings.get("tokenizer_class") or config.get("tokenizer_class")):
        raise DataError(
            f"{file} has no tokenizer_class: {kind.tokenizers[0]} is supported, by which texts "
            "begin with their language's code; if it is that, say so there"
        )
    content = folder / "tokenizer.json"
    if not content.exists():
        raise DataError(
            f"{content} is missing: write it with transformers, "
            f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
    words, special = _words(content)
    size = number(folder / "config.json", config, "vocab_size")
    last = max((id for word, id in words.items() if word not in special), default=0)
    if last >= size:
        raise DataError(f"{content} has ids up to {last}, but config.json says vocab_size={size}")
    # A model may lack a special word of its training, as BART's summarisers do their <mask>.
    words = {word: id for word, id in words.items() if id < size}
    marks = [_mark(file, settings, name, words) for name in _MARKS]
    pad, eos, unknown, begin = marks
    order = [pad, eos, eos, unknown, *(id for id in range(size) if id not in marks[:3])]
    sides, text = [], read_bytes(content).decode()
    for side, language in zip(("source", "target"), languages, strict=True):
        if kind.codes and language not in special:
            told = f"{content} has no {language!r}" if language else "it is not told which"
            raise DataError(
                f"--{side}_language is the code that this model's texts begin with, and {told}"
                f"{nearest(language, sorted(special - set(_MARKS.values())))}"
            )
        prefix = [words[language]] if kind.codes else [begin]
        try:
            cleans = bool(settings.get("clean_up_tokenization_spaces")) and kind.cleans
            sides.append(FastTokenizer.make(text, order, prefix, cleans))
        except DataError as error:
            raise DataError(f"{content}: {error}") from None
    if sides[0].to_bytes() == sides[1].to_bytes():
        sides[1] = sides[0]
    return Vocabulary(*sides), order


def _words(file: Path) -> tuple[dict[str, int], set[str]]:
    """The words of a tokenizer.json and their ids, and which are special; raises DataError."""
    found = read_json(file)
    try:
        model = found["model"]["vocab"]
        if isinstance(model, list):
            model = {word: id for id, (word, _) in enumerate(model)}
        special = {each["content"]: each["id"] for each in found.get("added_tokens") or ()}
        return model | special, set(special)
    except (LookupError, TypeError, ValueError, AttributeError):
        raise DataError(f"{file} is no tokenizer of Hugging Face's library") from None


_MARKS = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>", "bos": "<s>"}


def _mark(file: Path, settings: dict[str, Any], name: str, words: dict[str, int]) -> int:
    token = word_of(settings.get(f"{name}_token", _MARKS[name]))
    if token not in words:
        raise DataError(f"{file}: {name}_token={token!r} is no word of tokenizer.json")
    return words[token]


def _ours(file: Path, id: Any, order: Sequence[int]) -> int:
    if not isinstance(id, int) or id not in order[BOS + 1 :]:
        raise DataError(f"{file}: forced_bos_token_id={id!r} is no id of the vocabulary")
    return order.index(id, BOS + 1)


def _params(folder: Path, model: TransformerConfig, order: np.ndarray) -> dict[str, Any]:
    """The parameters of `model`; raises DataError where a tensor is missing or of another size."""
    file, tensors = read_tensors(folder)
    if "shared.weight" in tensors:  # saved without the output's projection, as facebook/bart-base
        tensors = {f"model.{name}": x for name, x in tensors.items()}
    arrays = parts.Arrays(file, tensors, "config.json")
    size = len(order) - 1  # BOS is ours alone
    tables = [f"{name}.weight" for name in
              ("model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens",
               "lm_head")]  # fmt: skip

    def table(_: str, shape: tuple[int, int]) -> np.ndarray:
        return arrays.take((size, shape[1]), *tables)

    bias = np.zeros((1, size), np.float32)
    if "final_logits_bias" in tensors:
        bias = arrays.take(bias.shape, "final_logits_bias")
    params = parts.layers(model, [*names(model), *around(model)], arrays)
    params |= parts.words(model, [order, order], 0, table, bias[0])
    params["output_bias"][BOS] = parts.UNSAID
    return params
