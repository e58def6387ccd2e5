"""A model of Marian's own (.npz or .bin) becomes an experiment, a vocabulary, weights.

Marian's outputs begin with a vector of zeros; as the embedding of BOS that is a row like others.
Matrices in 8 or 16 bits become float32 again. What its engines multiply activations by, and its
shortlists of likely words, are left out: here nothing is rounded and every word may be said.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from data.batch import BOS
from data.corpus import DataError
from experiments.config import DataConfig, Experiment
from experiments.importing import parts
from experiments.importing.fields import number, refuse_others
from experiments.importing.items import read_items
from experiments.importing.native_folder import find, search_settings
from experiments.importing.native_names import names
from experiments.importing.native_vocabulary import read_vocabulary
from experiments.importing.parts import Imported
from model import ConfigError, TransformerConfig

ACTIVATIONS = {"relu": "relu", "swish": "silu"}
_MIXERS = {"self-attention": "attention", "rnn": "ssru"}
_NEUTRAL: dict[str, tuple] = {  # their name, and the values that mean what is here without it
    "type": ("transformer",),
    "transformer-preprocess": ("",),
    "transformer-postprocess": ("dan", "an"),
    "transformer-postprocess-emb": ("d", ""),
    "transformer-postprocess-top": ("",),
    "transformer-decoder-autoreg": tuple(_MIXERS),
    "transformer-ffn-activation": tuple(ACTIVATIONS),
    "transformer-ffn-depth": (2,),
    "transformer-tied-layers": ([],),
    "lemma-dim-emb": (0,),
    "factors-dim-emb": (0,),
    **dict.fromkeys(
        (
            *("transformer-no-projection", "transformer-train-position-embeddings"),
            *("transformer-train-positions", "transformer-pool", "transformer-rnn-projection"),
            *("transformer-no-bias", "transformer-no-affine", "layer-normalization", "ulr"),
        ),
        (False,),
    ),
}
_LOGITS = "decoder_ff_logit_out"


def read_native(folder: Path, source_language: str = "", target_language: str = "") -> Imported:
    """The model of a folder; languages that are not given are those in its name, as "enpt".

    Raises DataError for what is missing, damaged or not supported, with file and field.
    """
    found = find(folder)
    items, settings = read_items(found.model)
    vocabulary, orders = read_vocabulary(*found.vocabularies)
    model = model_config(found.model, settings, [len(order) for order in orders])
    if model.tying == "all" and not vocabulary.joint:
        raise DataError(f"{found.model}: one table of embeddings, but the vocabularies differ")
    named = re.search(r"\.([a-z]{2})([a-z]{2})\.", found.model.name)
    languages = named.groups() if named else ("source", "target")
    data = DataConfig(
        source="text",
        source_language=source_language or languages[0],
        target_language=target_language or languages[1],
        vocab_size=vocabulary.source.vocab_size,
        joint=vocabulary.joint,
    )
    experiment = Experiment(model=model, data=data, search=search_settings(found))
    return Imported(experiment, vocabulary, _params(found.model, items, model, orders))


def model_config(file: Path, settings: dict[str, Any], sizes: list[int]) -> TransformerConfig:
    """The model of a model file's settings, with vocabularies of our `sizes`.

    Raises DataError, naming the field, for what is not here.
    """
    refuse_others(file, settings, _NEUTRAL)
    mixer = _MIXERS[settings.get("transformer-decoder-autoreg") or "self-attention"]
    if mixer == "ssru":
        cell = settings.get("dec-cell") or "gru"
        refuse_others(file, {"dec-cell": cell}, {"dec-cell": ("ssru",)})
    for size, told in zip(sizes, settings.get("dim-vocabs") or (), strict=False):
        if told not in (0, size - BOS - 1):
            raise DataError(
                f"{file}: dim-vocabs says {told}, but its vocabulary has {size - BOS - 1} words: "
                "is it another model's?"
            )
    decoders, every, sources = (
        bool(settings.get(f"tied-embeddings{name}")) for name in ("", "-all", "-src")
    )
    try:
        return TransformerConfig(
            vocab_size=sizes[0],
            target_vocab_size=None if sizes[0] == sizes[1] else sizes[1],
            encoder_layers=number(file, settings, "enc-depth"),
            decoder_layers=number(file, settings, "dec-depth"),
            d_model=number(file, settings, "dim-emb"),
            d_ff=number(file, settings, "transformer-dim-ffn"),
            num_heads=number(file, settings, "transformer-heads"),
            positions="sinusoidal_tensor2tensor",
            activation=ACTIVATIONS[settings.get("transformer-ffn-activation") or "swish"],
            attention_bias=True,
            decoder_mixer=mixer,
            tying="all" if every or (decoders and sources) else "decoder" if decoders else "none",
            output_bias=True,
        )
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None


def _params(
    file: Path, items: dict[str, np.ndarray], model: TransformerConfig, orders: list[np.ndarray]
) -> dict[str, Any]:
    """The parameters of `model`; raises DataError where an array is missing or of another size."""

    def take(shape: tuple[int, ...], *candidates: str) -> np.ndarray:
        for name in candidates:
            if name in items:
                if items[name].shape != shape:
                    raise DataError(
                        f"{file}: {name} is {list(items[name].shape)}, but by its settings it "
                        f"would be {list(shape)}"
                    )
                return items[name]
        raise DataError(f"{file} lacks {candidates[0]}, which its settings call for")

    own = BOS + 1  # ids of ours alone, before their own
    boxes = parts.shapes(model)
    params: dict[str, Any] = {}
    for named in names(model):
        shape = parts.shape_of(boxes, named.ours)
        parts.put(params, named.ours, take(named.size(shape), named.theirs).reshape(shape))
    sizes = [(len(order) - own, model.d_model) for order in orders]
    if model.tying == "all":
        params["embedding"] = {"table": parts.rows(take(sizes[1], "Wemb"), orders[1], own)}
    else:
        for name, side, size, order in zip(
            ("source", "target"), ("encoder", "decoder"), sizes, orders, strict=True
        ):
            table = parts.rows(take(size, f"{side}_Wemb", "Wemb"), order, own)
            params[f"{name}_embedding"] = {"table": table}
    if model.tying == "none":
        output = take(sizes[1][::-1], f"{_LOGITS}_W").T
        params["output"] = np.ascontiguousarray(parts.rows(output, orders[1], own).T)
    bias = np.zeros((1, sizes[1][0]), np.float32)  # where it has none
    if f"{_LOGITS}_b" in items:
        bias = take(bias.shape, f"{_LOGITS}_b")
    params["output_bias"] = parts.rows(bias[0], orders[1], own, parts.UNSAID)
    return params
