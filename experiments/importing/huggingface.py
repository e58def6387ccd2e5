"""A Hugging Face folder of a Marian model (OPUS-MT) becomes an experiment, a vocabulary, weights.

Ids move so that the special ones are Heed's: their padding, with which outputs begin, becomes BOS,
then come their end and their unknown word, then all others in their order. Our own PAD, which
nothing ever reads or says, is one id more, and its logit is kept too low to count.
"""

from pathlib import Path
from typing import Any

import numpy as np

from data.batch import UNK
from data.corpus import DataError
from data.marian import MarianTokenizer, Words
from data.tokenizer import Vocabulary
from experiments.config import DataConfig, Experiment
from experiments.importing import parts
from experiments.importing.fields import (
    added_tokens,
    fraction,
    number,
    read_bytes,
    read_json,
    refuse_others,
)
from experiments.importing.generation import find_search, search_settings
from experiments.importing.names import names
from experiments.importing.parts import Imported
from experiments.importing.tensors import read_tensors
from model import ConfigError, TransformerConfig

ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "swish": "silu"}
_NEUTRAL: dict[str, tuple] = {  # what an older or a related class would do otherwise
    "is_encoder_decoder": (True,),
    "normalize_before": (False,),
    "normalize_embedding": (False,),
    "add_final_layer_norm": (False,),
    "static_position_embeddings": (True,),
    "quantization_config": (),
}
_TOKENIZER: dict[str, tuple] = {
    "tokenizer_class": ("MarianTokenizer",),
    "sp_model_kwargs": ({},),
    "split_special_tokens": (False,),
}


def read_marian(folder: Path, source_language: str = "", target_language: str = "") -> Imported:
    """The model of a folder; languages that are given replace those that it names.

    Raises DataError for what is missing, damaged or not supported, with file and field.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    file = folder / "config.json"
    config = read_json(file)
    model = model_config(file, config)
    tokenizer = read_json(folder / "tokenizer_config.json", {})
    vocabulary, orders = read_vocabulary(folder, model, config)
    pad, eos, unknown = orders[1][1:4].tolist()
    search = search_settings(
        *find_search(folder, config),
        pad=pad,
        eos=eos,
        unknown=unknown,
        positions=number(file, config, "max_position_embeddings", 1024),
    )
    data = DataConfig(
        source="text",
        source_language=source_language or tokenizer.get("source_lang") or "source",
        target_language=target_language or tokenizer.get("target_lang") or "target",
        vocab_size=vocabulary.source.vocab_size,
        joint=vocabulary.joint,
    )
    experiment = Experiment(model=model, data=data, search=search)
    return Imported(experiment, vocabulary, _params(folder, config, model, orders))


def model_config(file: Path, config: dict[str, Any]) -> TransformerConfig:
    """The model of a config.json; raises DataError, naming the field, for what is not here."""
    kind = config.get("model_type")
    if kind != "marian":
        raise DataError(f"{file}: model_type={kind!r} is not supported, only 'marian'")
    refuse_others(file, config, _NEUTRAL)
    shared = config.get("share_encoder_decoder_embeddings", True)
    tied = config.get("tie_word_embeddings", True)
    source = number(file, config, "vocab_size")
    target = source if shared else number(file, config, "decoder_vocab_size", source)
    try:
        return TransformerConfig(
            vocab_size=source + 1,
            target_vocab_size=None if target == source else target + 1,
            positions="sinusoidal_halves",
            tying="none" if not tied else "all" if shared else "decoder",
            **shared_settings(file, config),
        )
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None


def shared_settings(file: Path, config: dict[str, Any]) -> dict[str, Any]:
    """What Marian's models and BART's kin have alike, as settings of a TransformerConfig.

    Raises DataError, naming the field, for what is not here.
    """
    for name in "ffn_dim", "attention_heads":
        sides = [number(file, config, f"{side}_{name}") for side in ("encoder", "decoder")]
        if sides[0] != sides[1]:
            raise DataError(
                f"{file}: encoder_{name}={sides[0]} and decoder_{name}={sides[1]} differ, which is "
                "not supported"
            )
    activation = config.get("activation_function", "gelu")
    if activation not in ACTIVATIONS:
        known = ", ".join(ACTIVATIONS)
        raise DataError(
            f"{file}: activation_function={activation!r} is not supported, only {known}"
        )
    return dict(
        encoder_layers=number(file, config, "encoder_layers"),
        decoder_layers=number(file, config, "decoder_layers"),
        d_model=number(file, config, "d_model"),
        d_ff=config["encoder_ffn_dim"],
        num_heads=config["encoder_attention_heads"],
        norm_epsilon=1e-5,
        activation=ACTIVATIONS[activation],
        attention_bias=True,
        scale_embedding=bool(config.get("scale_embedding", False)),
        output_bias=True,
        dropout=fraction(file, config, "dropout", 0.1),
        attention_dropout=fraction(file, config, "attention_dropout", 0.0),
        ff_dropout=fraction(file, config, "activation_dropout", 0.0),
    )


def read_vocabulary(
    folder: Path, model: TransformerConfig, config: dict[str, Any]
) -> tuple[Vocabulary, list[np.ndarray]]:
    """Both sides, and of each one's ids from 1 on what their ids were (0 stands before them).

    Raises DataError for files that are missing, or that do not go together.
    """
    file = folder / "tokenizer_config.json"
    settings = read_json(file, {})
    refuse_others(file, settings, _TOKENIZER)
    separate = settings.get("separate_vocabs", False)
    tables = [folder / "vocab.json"]
    tables.append(folder / "target_vocab.json" if separate else tables[0])
    if separate and config.get("share_encoder_decoder_embeddings", True):
        raise DataError(f"{file}: separate_vocabs does not go with shared embeddings")
    words, orders = [], []
    marks = [_text(settings.get(f"{name}_token"), default) for name, default in _MARKS.items()]
    special = _special(file, settings)
    for side, size in zip(tables, (model.vocab_size, model.target_vocab), strict=True):
        ids = _ids(side, size - 1)
        for mark in marks:
            if mark not in ids:
                raise DataError(f"{side} lacks {mark!r}, which {file} names")
        for mark in special:
            if special[mark] is not None and ids.get(mark) != special[mark]:
                raise DataError(f"{side}: {mark!r} has another id than {file} says")
        first = [ids[mark] for mark in marks]
        others = [word for word in sorted(ids, key=ids.__getitem__) if word not in marks]
        orders.append(np.array([0, *first, *(ids[word] for word in others)]))
        words.append(
            Words(
                tuple(others),
                *(marks[1], marks[2], marks[0]),
                tuple(mark for mark in special if mark in ids and mark not in marks),
                bool(settings.get("clean_up_tokenization_spaces", False)),
            )
        )
    if (orders[0][1 : UNK + 1] != orders[1][1 : UNK + 1]).any():
        raise DataError(f"{tables[1]}: {', '.join(marks)} have other ids than in {tables[0]}")
    source, target = (read_bytes(folder / f"{side}.spm") for side in ("source", "target"))
    # Theirs joins the pieces of outputs by the source's model where the table is one for both.
    pairs = (source, source), (target, target if separate else source)
    sides = []
    for name, pair, table in zip(("source", "target"), pairs, words, strict=True):
        try:
            sides.append(MarianTokenizer.make(*pair, table))
        except DataError as error:
            raise DataError(f"{folder / name}.spm: {error}") from None
    return Vocabulary(*sides), orders


_MARKS = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}


def _text(token: Any, default: str) -> str:
    """A special word, which may be an object with its properties."""
    return str(token.get("content", default) if isinstance(token, dict) else token or default)


def _special(file: Path, settings: dict[str, Any]) -> dict[str, int | None]:
    """Further words that are never cut, and the ids that they should have, if these are told."""
    found: dict[str, int | None] = {}
    for id, word in added_tokens(file, settings):
        found[word] = id
    for name in "additional_special_tokens", "extra_special_tokens":
        listed = settings.get(name) or []
        for token in listed.values() if isinstance(listed, dict) else listed:
            found.setdefault(_text(token, ""), None)
    return found


def _ids(file: Path, size: int) -> dict[str, int]:
    ids = read_json(file)
    if sorted(map(str, ids.values())) != sorted(map(str, range(size))):
        raise DataError(
            f"{file} has {len(ids)} words, and config.json says vocab_size={size}: it needs one "
            f"word for each id from 0 to {size - 1}"
        )
    return ids


def _params(
    folder: Path, config: dict[str, Any], model: TransformerConfig, orders: list[np.ndarray]
) -> dict[str, Any]:
    """The parameters of `model`; raises DataError where a tensor is missing or of another size."""
    file, tensors = read_tensors(folder)
    arrays = parts.Arrays(file, tensors, "config.json")
    encoder, decoder = (f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder"))
    shared = "model.shared.weight"
    tables = {
        "all": (shared, encoder, decoder),
        "source": (encoder, shared),
        "target": (decoder, shared),
        "output": ("lm_head.weight", decoder, shared),
    }
    bias = np.zeros((1, len(orders[1]) - 1), np.float32)
    if "final_logits_bias" in tensors:
        bias = arrays.take(bias.shape, "final_logits_bias")

    def table(which: str, shape: tuple[int, int]) -> np.ndarray:
        return arrays.take(shape, *tables[which])

    layers = parts.layers(model, names(model), arrays)
    return layers | parts.words(model, orders, 1, table, bias[0])
