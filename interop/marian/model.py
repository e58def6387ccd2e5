"""Import a model of Marian's own (.npz or .bin).

Marian's outputs begin with a vector of zeros; as the embedding of BOS that is a row like others.
Matrices in 8 or 16 bits become float32 again; what engines multiply activations by, to round them
as well, is left out. A shortlist of likely words goes into the run: it is a part of what is said.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from data.batch import BOS
from data.errors import DataError
from experiments.config import DataConfig, Experiment
from experiments.console import log
from interop import imported_model
from interop.fields import number, reject_unsupported
from interop.imported_model import ImportedModel
from interop.marian.binary import read_items
from interop.marian.files import Folder, find, search_settings
from interop.marian.param_names import names
from interop.marian.settings import model_settings
from interop.marian.shortlist import is_binary, read_shortlist
from interop.marian.vocabulary import read_vocabulary
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
            *("transformer-no-bias", "transformer-no-affine", "layer-normalization"),
            *("right-left", "ulr"),
        ),
        (False,),
    ),
}
_LOGITS = "decoder_ff_logit_out"
_OWN = BOS + 1  # ids of ours alone, before their own


def read_native(
    folder: Path, source_language: str = "", target_language: str = ""
) -> ImportedModel:
    """The model of a folder; languages that are not given are those in its name, as "enpt".

    Raises DataError for what is missing, damaged or not supported, with file and field.
    """
    found = find(folder)
    items, text = read_items(found.model)
    settings = model_settings(found.model, text)
    vocabulary, id_maps = read_vocabulary(*found.vocabularies)
    model = model_config(found.model, settings, [len(order) for order in id_maps])
    imported_model.check_sizes(found.model, model, *imported_model.count(items))
    if model.tying == "all" and not vocabulary.shared:
        raise DataError(f"{found.model}: one table of embeddings, but the vocabularies differ")
    languages = _languages(found)
    data = DataConfig(
        kind="text",
        source_language=source_language or languages[0],
        target_language=target_language or languages[1],
        vocab_size=vocabulary.source.vocab_size,
        shared_vocab=vocabulary.shared,
    )
    words = None
    if found.shortlist and is_binary(found.shortlist):
        words = read_shortlist(found.shortlist, id_maps, _OWN, vocabulary.shared)
    elif found.shortlist:
        log(f"warning: {found.shortlist} is no binary shortlist: it is left out")
    experiment = Experiment(model=model, data=data, search=search_settings(found))
    biased = not settings.get("output-omit-bias")
    params = _params(found.model, items, model, id_maps, biased)
    return ImportedModel(experiment, vocabulary, params, words)


def _languages(found: Folder) -> tuple[str, str]:
    """Those that both the model's name and another file's have, as "enpt" in model.enpt.bin."""
    others = [file.name for file in (*found.vocabularies, found.shortlist) if file]
    for tag in re.findall(r"(?<=\.)[a-z]{4}(?=\.)", found.model.name):
        if any(f".{tag}." in name for name in others):
            return tag[:2], tag[2:]
    return "source", "target"


def model_config(file: Path, settings: dict[str, Any], sizes: list[int]) -> TransformerConfig:
    """The model of a model file's settings, with vocabularies of our `sizes`.

    Raises DataError, naming the field, for what is not here.
    """
    reject_unsupported(file, settings, _NEUTRAL)
    mixer = _MIXERS[settings.get("transformer-decoder-autoreg") or "self-attention"]
    if mixer == "ssru":
        cell = settings.get("dec-cell") or "gru"
        reject_unsupported(file, {"dec-cell": cell}, {"dec-cell": ("ssru",)})
    told_sizes = settings.get("dim-vocabs") or []
    for size, told in zip(sizes, told_sizes, strict=False):
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
    file: Path,
    items: dict[str, np.ndarray],
    model: TransformerConfig,
    id_maps: list[np.ndarray],
    biased: bool,
) -> dict[str, Any]:
    """The parameters of `model`; raises DataError where an array is missing or of another size."""
    arrays = imported_model.Arrays(file, items, "its settings")
    tables = {
        "all": ("Wemb",),
        "source": ("encoder_Wemb", "Wemb"),
        "target": ("decoder_Wemb", "Wemb"),
    }

    def table(which: str, shape: tuple[int, int]) -> np.ndarray:
        if which == "output":
            return arrays.take(shape[::-1], f"{_LOGITS}_W").T
        return arrays.take(shape, *tables[which])

    bias = np.zeros((1, len(id_maps[1]) - _OWN), np.float32)
    if biased:
        bias = arrays.take(bias.shape, f"{_LOGITS}_b")
    layers = imported_model.layers(model, names(model), arrays)
    params = layers | imported_model.words(model, id_maps, _OWN, table, bias[0])
    for name in sorted(items.keys() - arrays.asked):
        if name.startswith(("encoder", "decoder", "W")) and not name.endswith("_QuantMultA"):
            raise DataError(f"{file}: its settings do not say what {name} is for")
    return params
