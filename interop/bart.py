"""Import Hugging Face BART, mBART-50 and M2M-100 (NLLB).

The decoder input starts with EOS: BOS, which is a separate id in Heed, gets the same embedding and
is never output. All other ids, also the padding, keep their embeddings; only their order is
Heed's. The tokenizer adds the first token of texts, a language code or BART's `<s>`; if the
settings force it, it has no cost as the first output token.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data.batch import BOS
from data.errors import DataError
from data.hf_tokenizer import FastTokenizer
from data.vocabulary import Vocabulary
from experiments.config import DataConfig, Experiment
from experiments.did_you_mean import did_you_mean
from interop import imported_model, tokenizer_config
from interop.config_json import Bart, family
from interop.fields import read_settings
from interop.generation_config import read_generation, search_settings
from interop.hf_marian import shared_settings
from interop.hf_param_names import names, outer_names
from interop.imported_model import ImportedModel
from interop.tensor_files import read_tensors
from interop.tokenizer_config import TokenizerConfig
from interop.tokenizer_json import AddedWithId, read_tokenizer
from model import ConfigError, TransformerConfig


class Variant(NamedTuple):
    """A model_type: settings that config.json implies, and the first token of texts."""

    model: dict[str, Any]
    neutral: dict[str, tuple]
    tokenizers: tuple[str, ...]
    codes: bool  # texts start with a language code instead of `<s>`
    cleans: bool = False  # clean up spaces in outputs if the tokenizer's settings say so


_LEARNED = {"positions": "learned", "embedding_norm": True}
_COMMON = {"is_encoder_decoder": (True,), "quantization_config": ()}
_NORMALIZED = {"normalize_embedding": (True,), "static_position_embeddings": (False,)}
VARIANTS = {
    "bart": Variant(
        {"norm": "post", **_LEARNED},
        _COMMON | _NORMALIZED | {"normalize_before": (False,), "add_final_layer_norm": (False,)},
        ("BartTokenizer", "BartTokenizerFast", "RobertaTokenizer", "RobertaTokenizerFast"),
        False,
    ),
    "mbart": Variant(
        {"norm": "pre", **_LEARNED},
        _COMMON | _NORMALIZED | {"normalize_before": (True,), "add_final_layer_norm": (True,)},
        ("MBart50Tokenizer", "MBart50TokenizerFast"),
        True,
        True,
    ),
    "m2m_100": Variant(
        {"norm": "pre", "positions": "sinusoidal_tensor2tensor", "position_offset": 2},
        _COMMON,
        ("NllbTokenizer", "NllbTokenizerFast"),
        True,
    ),
}


def read_bart(folder: Path, source_language: str = "", target_language: str = "") -> ImportedModel:
    """Import a folder's model; given languages override those of the tokenizer's config.

    Raises DataError for missing, corrupt or unsupported files and fields, naming them.
    """
    file = folder / "config.json"
    variant = VARIANTS[family(file) or ""]
    config = read_config(file, variant)
    model = model_config(file, config, variant)
    weights, tensors = read_tensors(folder)
    imported_model.check_sizes(file, model, *imported_model.count(tensors))
    neutral = {"tokenizer_class": variant.tokenizers, "legacy_behaviour": (False,)}
    settings = tokenizer_config.read_tokenizer_config(folder, neutral)
    languages = [source_language or settings.src_lang, target_language or settings.tgt_lang]
    vocabulary, order = read_vocabulary(folder, config, settings, variant, languages)
    generation_file, generation = read_generation(folder, forces=True)
    pad, eos, _, unknown = order[:4]
    search = search_settings(
        generation_file,
        generation,
        pad=pad,
        eos=eos,
        unknown=unknown,
        start=eos,
        positions=config.max_position_embeddings,
    )
    forced_bos_id = vocabulary.target.prefix[0] if variant.codes else 0
    if generation.forced_bos_token_id is not None:
        forced = _heed_id(generation_file, generation.forced_bos_token_id, order)
        if variant.codes and forced != forced_bos_id:
            (code,) = vocabulary.target.pieces([forced])
            raise DataError(
                f"{generation_file}: outputs start with {code!r}: set --target_language={code}"
            )
        forced_bos_id = forced
    data = DataConfig(
        kind="text",
        source_language=languages[0] or "source",
        target_language=languages[1] or "target",
        vocab_size=vocabulary.source.vocab_size,
        max_length=min(DataConfig.max_length, model.max_positions or DataConfig.max_length),
    )
    experiment = Experiment(
        model=model, data=data, search=replace(search, forced_bos_id=forced_bos_id)
    )
    return ImportedModel(experiment, vocabulary, _params(weights, tensors, model, np.array(order)))


def read_config(file: Path, variant: Variant) -> Bart:
    """Read a config.json; raises DataError, naming unsupported fields."""
    neutral = variant.neutral | {
        "tokenizer_class": variant.tokenizers,
        "tie_word_embeddings": (True,),
    }
    return read_settings(file, Bart, neutral)


def model_config(file: Path, config: Bart, variant: Variant) -> TransformerConfig:
    """Convert a config.json to a TransformerConfig; raises DataError for unsupported fields."""
    try:
        return TransformerConfig(
            vocab_size=config.vocab_size + 1,
            max_length=config.max_position_embeddings,
            **shared_settings(file, config),
            **variant.model,
        )
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None


def read_vocabulary(
    folder: Path,
    config: Bart,
    settings: TokenizerConfig,
    variant: Variant,
    languages: Sequence[str],
) -> tuple[Vocabulary, list[int]]:
    """Read both tokenizers, and the file's ids in the order of Heed's.

    Raises DataError for files that are missing or inconsistent, and for a missing language.
    """
    file = folder / tokenizer_config.NAME
    if variant.codes and not (settings.tokenizer_class or config.tokenizer_class):
        raise DataError(
            f"{file} has no tokenizer_class: only {variant.tokenizers[0]} is supported, whose "
            "texts start with a language code; if it is that class, add it there"
        )
    content = folder / "tokenizer.json"
    if not os.path.lexists(content):
        raise DataError(
            f"{content} is missing: write it with transformers: "
            f"AutoTokenizer.from_pretrained({str(folder)!r}).save_pretrained({str(folder)!r})"
        )
    text, words, added = read_tokenizer(content)
    _check_added(file, settings, words, added)
    size = config.vocab_size
    max_id = max((id for word, id in words.items() if word not in added), default=0)
    if max_id >= size:
        raise DataError(f"{content} has ids up to {max_id}, but config.json says vocab_size={size}")
    # A model may lack a special token of its pretraining, as BART's summarizers lack <mask>.
    words = {word: id for word, id in words.items() if id < size}
    special = added.keys() & words.keys()
    marks = [_mark(file, settings, name, words) for name in _MARKS]
    pad, eos, unknown, bos = marks
    order = [pad, eos, eos, unknown, *(id for id in range(size) if id not in marks[:3])]
    sides = []
    for side, language in zip(("source", "target"), languages, strict=True):
        if variant.codes and language not in special:
            problem = f"{content} has no {language!r}" if language else "it is not given"
            raise DataError(
                f"--{side}_language is the language code at the start of texts, and {problem}"
                f"{did_you_mean(language, sorted(special - set(_MARKS.values())))}"
            )
        prefix = [words[language]] if variant.codes else [bos]
        try:
            cleans = settings.clean_up_tokenization_spaces and variant.cleans
            sides.append(FastTokenizer.make(text, order, prefix, cleans))
        except DataError as error:
            raise DataError(f"{content}: {error}") from None
    if sides[0].to_bytes() == sides[1].to_bytes():
        sides[1] = sides[0]
    return Vocabulary(*sides), order


_MARKS = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>", "bos": "<s>"}


def _mark(file: Path, settings: TokenizerConfig, name: str, words: dict[str, int]) -> int:
    token = settings.mark(name, _MARKS[name])
    if token not in words:
        raise DataError(f"{file}: {name}_token={token!r} is not in tokenizer.json")
    return words[token]


def _check_added(
    file: Path, settings: TokenizerConfig, words: dict[str, int], added: dict[str, AddedWithId]
) -> None:
    """Raise DataError if tokenizer_config.json changes the added tokens of tokenizer.json.

    Hugging Face's class adds them to the library's tokenizer; Heed uses only the library.
    """
    for id, token in settings.added_tokens_decoder.items():
        existing = added.get(token.content)
        if existing is None or (existing.id, existing.special) != (id, token.special):
            raise DataError(
                f"{file}: added token {id}, {token.content!r}, differs from tokenizer.json, "
                "which is not supported"
            )
    for name, word in settings.listed():
        if word not in added or not added[word].special:
            raise DataError(
                f"{file}: {name} has {word!r}, but only special tokens of tokenizer.json are "
                "supported"
            )


def _heed_id(file: Path, id: int, order: Sequence[int]) -> int:
    if id not in order[BOS + 1 :]:
        raise DataError(f"{file}: forced_bos_token_id={id!r} is not an id of the vocabulary")
    return order.index(id, BOS + 1)


def _params(
    file: Path, tensors: dict[str, np.ndarray], model: TransformerConfig, order: np.ndarray
) -> dict[str, Any]:
    """Convert the parameters of `model`; raises DataError for missing or misshapen tensors."""
    if "shared.weight" in tensors:  # saved without the output projection, as facebook/bart-base
        tensors = {f"model.{name}": x for name, x in tensors.items()}
    arrays = imported_model.TensorReader(file, tensors, "config.json")
    size = len(order) - 1  # BOS exists only in Heed
    tables = [f"{name}.weight" for name in
              ("model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens",
               "lm_head")]  # fmt: skip

    def table(_: str, shape: tuple[int, int]) -> np.ndarray:
        return arrays.read((size, shape[1]), *tables)

    bias = arrays.read_or_zeros((1, size), "final_logits_bias")
    params = imported_model.layer_params(model, chain(names(model), outer_names(model)), arrays)
    params |= imported_model.embedding_params(model, [order, order], 0, table, bias[0])
    params["output_bias"][BOS] = imported_model.MASKED_LOGIT
    return params
