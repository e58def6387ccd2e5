"""Import a native Marian model (.npz or .bin).

Marian's outputs begin with a vector of zeros, which becomes the embedding of BOS. Matrices in 8 or
16 bits become float32; the activation scales of quantized inference are dropped. A shortlist of
likely words is kept in the run, because it affects translations.
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
_NEUTRAL: dict[str, tuple] = {  # Marian's settings, and their values that have no effect
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
_NUM_NEW = BOS + 1  # ids that exist in Heed only, before Marian's


def read_native(
    folder: Path, source_language: str = "", target_language: str = ""
) -> ImportedModel:
    """Import a folder's model; languages default to those in the file names, as "enpt".

    Raises DataError for missing, corrupt or unsupported files and fields, naming them.
    """
    files = find(folder)
    items, text = read_items(files.model)
    settings = model_settings(files.model, text)
    vocabulary, id_maps = read_vocabulary(*files.vocabularies)
    model = model_config(files.model, settings, [len(order) for order in id_maps])
    imported_model.check_sizes(files.model, model, *imported_model.count(items))
    if model.tying == "all" and not vocabulary.shared:
        raise DataError(f"{files.model}: one table of embeddings, but the vocabularies differ")
    languages = _languages(files)
    data = DataConfig(
        kind="text",
        source_language=source_language or languages[0],
        target_language=target_language or languages[1],
        vocab_size=vocabulary.source.vocab_size,
        shared_vocab=vocabulary.shared,
    )
    words = None
    if files.shortlist and is_binary(files.shortlist):
        words = read_shortlist(files.shortlist, id_maps, _NUM_NEW, vocabulary.shared)
    elif files.shortlist:
        log(f"warning: {files.shortlist} is no binary shortlist: it is left out")
    experiment = Experiment(model=model, data=data, search=search_settings(files))
    biased = not settings.get("output-omit-bias")
    params = _params(files.model, items, model, id_maps, biased)
    return ImportedModel(experiment, vocabulary, params, words)


def _languages(files: Folder) -> tuple[str, str]:
    """Languages in the names of both the model and another file, as "enpt" in model.enpt.bin."""
    file_names = [file.name for file in (*files.vocabularies, files.shortlist) if file]
    for tag in re.findall(r"(?<=\.)[a-z]{4}(?=\.)", files.model.name):
        if any(f".{tag}." in name for name in file_names):
            return tag[:2], tag[2:]
    return "source", "target"


def model_config(file: Path, settings: dict[str, Any], sizes: list[int]) -> TransformerConfig:
    """Convert a model file's settings to a TransformerConfig with Heed's vocabulary `sizes`.

    Raises DataError, naming the field, for unsupported settings.
    """
    reject_unsupported(file, settings, _NEUTRAL)
    mixer = _MIXERS[settings.get("transformer-decoder-autoreg") or "self-attention"]
    if mixer == "ssru":
        cell = settings.get("dec-cell") or "gru"
        reject_unsupported(file, {"dec-cell": cell}, {"dec-cell": ("ssru",)})
    dims = settings.get("dim-vocabs") or []
    for size, dim in zip(sizes, dims, strict=False):
        if dim not in (0, size - BOS - 1):
            raise DataError(
                f"{file}: dim-vocabs says {dim}, but its vocabulary has {size - BOS - 1} words: "
                "is it another model's?"
            )
    decoders, tied_all, sources = (
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
            tying="all"
            if tied_all or (decoders and sources)
            else "decoder"
            if decoders
            else "none",
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
    """Convert the parameters of `model`; raises DataError for missing or misshapen arrays."""
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

    bias = np.zeros((1, len(id_maps[1]) - _NUM_NEW), np.float32)
    if biased:
        bias = arrays.take(bias.shape, f"{_LOGITS}_b")
    layers = imported_model.layers(model, names(model), arrays)
    params = layers | imported_model.words(model, id_maps, _NUM_NEW, table, bias[0])
    for name in sorted(items.keys() - arrays.asked):
        if name.startswith(("encoder", "decoder", "W")) and not name.endswith("_QuantMultA"):
            raise DataError(f"{file}: its settings do not say what {name} is for")
    return params
