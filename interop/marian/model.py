"""Import a native Marian model (.npz or .bin).

Marian's decoder inputs start with a zero vector, which becomes the embedding of BOS. Matrices in 8
or 16 bits become float32; the activation scales of quantized inference are dropped. A lexical
shortlist is stored in the run, because it affects translations.
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
from interop.fields import read_int, reject_unsupported
from interop.imported_model import ImportedModel
from interop.marian.binary import read_items
from interop.marian.files import Folder, find_files, search_settings
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
_NUM_ADDED_IDS = BOS + 1  # PAD and BOS, which exist only in Heed, before Marian's ids


def read_native(
    folder: Path, source_language: str = "", target_language: str = ""
) -> ImportedModel:
    """Import a folder's model; languages default to those in the file names, such as "enpt".

    Raises DataError for missing, corrupt or unsupported files and fields, naming them.
    """
    files = find_files(folder)
    items, text = read_items(files.model)
    settings = model_settings(files.model, text)
    vocabulary, id_maps = read_vocabulary(*files.vocabularies)
    model = model_config(files.model, settings, [len(order) for order in id_maps])
    imported_model.check_sizes(files.model, model, *imported_model.count(items))
    if model.tying == "all" and not vocabulary.shared:
        raise DataError(f"{files.model}: it has one embedding table, but the vocabularies differ")
    languages = _languages(files)
    data = DataConfig(
        kind="text",
        source_language=source_language or languages[0],
        target_language=target_language or languages[1],
        vocab_size=vocabulary.source.vocab_size,
        shared_vocab=vocabulary.shared,
    )
    shortlist = None
    if files.shortlist and is_binary(files.shortlist):
        shortlist = read_shortlist(files.shortlist, id_maps, _NUM_ADDED_IDS, vocabulary.shared)
    elif files.shortlist:
        log(f"warning: {files.shortlist} is not a binary shortlist: ignored")
    experiment = Experiment(model=model, data=data, search=search_settings(files))
    biased = not settings.get("output-omit-bias")
    params = _params(files.model, items, model, id_maps, biased)
    return ImportedModel(experiment, vocabulary, params, shortlist)


def _languages(files: Folder) -> tuple[str, str]:
    """Languages in the names of the model and another file, such as "enpt" in model.enpt.bin."""
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
                "does it belong to another model?"
            )
    tied_decoder, tied_all, tied_source = (
        bool(settings.get(f"tied-embeddings{name}")) for name in ("", "-all", "-src")
    )
    try:
        return TransformerConfig(
            vocab_size=sizes[0],
            target_vocab_size=None if sizes[0] == sizes[1] else sizes[1],
            encoder_layers=read_int(file, settings, "enc-depth"),
            decoder_layers=read_int(file, settings, "dec-depth"),
            d_model=read_int(file, settings, "dim-emb"),
            d_ff=read_int(file, settings, "transformer-dim-ffn"),
            num_heads=read_int(file, settings, "transformer-heads"),
            positions="sinusoidal_tensor2tensor",
            activation=ACTIVATIONS[settings.get("transformer-ffn-activation") or "swish"],
            attention_bias=True,
            decoder_mixer=mixer,
            tying="all"
            if tied_all or (tied_decoder and tied_source)
            else "decoder"
            if tied_decoder
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
    arrays = imported_model.TensorReader(file, items, "its settings")
    tables = {
        "all": ("Wemb",),
        "source": ("encoder_Wemb", "Wemb"),
        "target": ("decoder_Wemb", "Wemb"),
    }

    def table(name: str, shape: tuple[int, int]) -> np.ndarray:
        if name == "output":
            return arrays.read(shape[::-1], f"{_LOGITS}_W").T
        return arrays.read(shape, *tables[name])

    bias = np.zeros((1, len(id_maps[1]) - _NUM_ADDED_IDS), np.float32)
    if biased:
        bias = arrays.read(bias.shape, f"{_LOGITS}_b")
    params = imported_model.layer_params(model, names(model), arrays)
    params |= imported_model.embedding_params(model, id_maps, _NUM_ADDED_IDS, table, bias[0])
    for name in sorted(items.keys() - arrays.requested):
        if name.startswith(("encoder", "decoder", "W")) and not name.endswith("_QuantMultA"):
            raise DataError(f"{file}: its settings do not explain {name}")
    return params
