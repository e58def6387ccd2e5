"""Import a fairseq Transformer checkpoint: experiment, vocabulary, weights.

The decoder input starts with EOS: BOS, which is a separate id in Heed, gets the same embedding and
is never output. All other ids, also the padding, keep their embeddings, so that probabilities are
equal; only their order is Heed's. fairseq's first position is 2.
"""

from pathlib import Path
from typing import Any

import numpy as np

from data.batch import BOS
from data.errors import DataError
from experiments.config import DataConfig, Experiment
from interop import hf_param_names as huggingface_names
from interop import imported_model
from interop.fairseq.files import (
    find_checkpoint,
    find_merges,
    find_sides,
    read_vocabulary,
)
from interop.fairseq.settings import read_settings, search_settings
from interop.fields import read_int, reject_unsupported
from interop.imported_model import MASKED_LOGIT, ImportedModel
from interop.torch_archive import read_arrays, read_content
from model import ConfigError, TransformerConfig

ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "swish": "silu"}
_POSITION_OFFSET = 2  # positions up to the padding id are unused
_ORDER = (1, 2, 2, 3, 0)  # fairseq's ids of PAD, BOS, EOS, UNK, and of its <s>
_MARKS = 4  # fairseq's special tokens, which dictionaries omit
_STANDARD = (  # one class, several sizes
    *("transformer", "transformer_tiny", "transformer_iwslt_de_en", "transformer_wmt_en_de"),
    *("transformer_vaswani_wmt_en_de_big", "transformer_vaswani_wmt_en_fr_big"),
    *("transformer_wmt_en_de_big", "transformer_wmt_en_de_big_t2t"),
)
_NEUTRAL: dict[str, tuple] = {  # fairseq's settings, and their values that have no effect
    "arch": _STANDARD,
    "task": ("translation",),
    "tokenizer": ("space",),
    "bpe": ("subword_nmt",),
    "adaptive_softmax_cutoff": ("",),
    "encoder_layers_to_keep": ("",),
    "decoder_layers_to_keep": ("",),
    "base_layers": (0,),
    "quant_noise_scalar": (0,),
    "activation_fn": tuple(ACTIVATIONS),
    **dict.fromkeys(
        (
            *("layernorm_embedding", "adaptive_input", "no_token_positional_embeddings"),
            *("no_cross_attention", "cross_self_attention", "no_decoder_final_norm"),
            *("scale_attn", "scale_fc", "scale_heads", "scale_resids"),
        ),
        (False,),
    ),
}
_SHARED_BY_SIDES = (
    "embed_dim",
    "ffn_embed_dim",
    "attention_heads",
    "normalize_before",
    "learned_pos",
)
_UNREAD = {f"{side}.{name}" for side in ("encoder", "decoder")
           for name in ("version", "embed_positions._float_tensor")}  # fmt: skip


def read_fairseq(path: Path, source_language: str = "", target_language: str = "") -> ImportedModel:
    """Import a folder's model or a checkpoint; given languages determine the two sides.

    Raises DataError for missing, corrupt or unsupported files and fields, naming them.
    """
    file = find_checkpoint(path)
    content = read_content(file)
    settings, generation = read_settings(file, content)
    reject_unsupported(file, settings, _NEUTRAL)
    sides = find_sides(file, settings, source_language, target_language)
    vocabulary = read_vocabulary(sides, find_merges(file, settings))
    model = model_config(file, settings, vocabulary.source.vocab_size, vocabulary.target.vocab_size)
    arrays = read_arrays(file, content["model"])
    imported_model.check_sizes(file, model, *imported_model.count(arrays))
    if model.tying == "all" and not vocabulary.shared:
        raise DataError(
            f"{sides.files[0]} and {sides.files[1]} differ, but {file} says share_all_embeddings"
        )
    max_positions = read_int(file, settings, "max_target_positions", 1024)
    data = DataConfig(
        kind="text",
        source_language=sides.languages[0],
        target_language=sides.languages[1],
        vocab_size=vocabulary.source.vocab_size,
        shared_vocab=vocabulary.shared,
        max_length=min(DataConfig.max_length, model.max_positions or DataConfig.max_length),
    )
    search = search_settings(file, generation, max_positions)
    experiment = Experiment(model=model, data=data, search=search)
    for language, dictionary, side in zip(
        sides.languages, sides.files, ("encoder", "decoder"), strict=True
    ):
        name, tokenizer = f"{side}.embed_tokens.weight", vocabulary[side == "decoder"]
        rows = len(arrays.get(name, ()))
        if rows and rows != tokenizer.vocab_size - 1:
            raise DataError(
                f"{dictionary} has {tokenizer.vocab_size - 1 - _MARKS} words, and there are "
                f"{_MARKS} more, but {file} has {rows} of {language} in {name}: does it belong to "
                "another model?"
            )
    return ImportedModel(experiment, vocabulary, _params(file, arrays, model))


def model_config(
    file: Path, settings: dict[str, Any], source: int, target: int
) -> TransformerConfig:
    """Convert a checkpoint's settings to a TransformerConfig with Heed's vocabulary sizes.

    Raises DataError, naming the field, for unsupported settings.
    """
    for name in _SHARED_BY_SIDES:
        encoder, decoder = (
            settings.get(f"{side}_{name}") or False for side in ("encoder", "decoder")
        )
        if encoder != decoder:
            raise DataError(
                f"{file}: encoder_{name}={encoder} and decoder_{name}={decoder} differ, which "
                "is not supported"
            )
    width = read_int(file, settings, "encoder_embed_dim")
    reject_unsupported(
        file, settings, {f"decoder_{name}_dim": (width,) for name in ("input", "output")}
    )
    learned = bool(settings.get("encoder_learned_pos"))
    lengths = [read_int(file, settings, f"max_{side}_positions", 1024)
               for side in ("source", "target")]  # fmt: skip
    if learned and lengths[0] != lengths[1]:
        raise DataError(
            f"{file}: max_source_positions={lengths[0]} and max_target_positions={lengths[1]} "
            "differ, which is not supported with learned positions"
        )
    tied_all, tied = (bool(settings.get(f"share_{name}"))
                   for name in ("all_embeddings", "decoder_input_output_embed"))  # fmt: skip
    dropouts = [settings.get(name) or 0.0
             for name in ("dropout", "attention_dropout", "activation_dropout")]  # fmt: skip
    try:
        return TransformerConfig(
            vocab_size=source,
            target_vocab_size=None if target == source else target,
            encoder_layers=read_int(file, settings, "encoder_layers"),
            decoder_layers=read_int(file, settings, "decoder_layers"),
            d_model=width,
            d_ff=read_int(file, settings, "encoder_ffn_embed_dim"),
            num_heads=read_int(file, settings, "encoder_attention_heads"),
            norm="pre" if settings.get("encoder_normalize_before") else "post",
            norm_epsilon=1e-5,
            positions="learned" if learned else "sinusoidal_tensor2tensor",
            position_offset=0 if learned else _POSITION_OFFSET,
            max_length=lengths[0],
            activation=ACTIVATIONS[settings.get("activation_fn") or "relu"],
            attention_bias=True,
            tying="all" if tied_all else "decoder" if tied else "none",
            scale_embedding=not settings.get("no_scale_embedding"),
            output_bias=True,
            dropout=float(dropouts[0]),
            attention_dropout=float(dropouts[1]),
            mlp_dropout=float(dropouts[2] or settings.get("relu_dropout") or 0.0),
        )
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None


def _params(file: Path, items: dict[str, np.ndarray], model: TransformerConfig) -> dict[str, Any]:
    """Convert the parameters of `model`; raises DataError for missing or misshapen arrays."""
    arrays = imported_model.TensorReader(file, items, "its settings")
    source, target = (f"{side}.embed_tokens.weight" for side in ("encoder", "decoder"))
    output = ("decoder.output_projection.weight", "decoder.embed_out")
    tables = {"all": (source,), "source": (source,), "target": (target,), "output": output}
    # A tied table is stored once for each use.
    copies = {"all": (target, *output), "target": output if model.tying == "decoder" else ()}

    def table(name: str, shape: tuple[int, int]) -> np.ndarray:
        shape = shape[0] - 1, shape[1]  # BOS exists only in Heed
        array = arrays.read(shape, *tables[name])
        for copy in copies.get(name, ()):
            if copy in items and not np.array_equal(arrays.read(shape, copy), array):
                raise DataError(f"{file}: {copy} differs from {tables[name][0]}")
        return array

    id_maps = [np.array([*_ORDER, *range(_MARKS, size - 1)])
              for size in (model.vocab_size, model.target_vocab)]  # fmt: skip
    params = imported_model.layer_params(model, _names(model), arrays)
    params |= imported_model.embedding_params(
        model, id_maps, 0, table, np.zeros(len(id_maps[1]), np.float32)
    )
    params["output_bias"][BOS] = MASKED_LOGIT
    for name in sorted(items.keys() - arrays.requested - _UNREAD):
        raise DataError(f"{file}: its settings do not explain {name}")
    return params


def _names(model: TransformerConfig):
    """Parameter names of Hugging Face, without the prefix "model."."""
    for name in (*huggingface_names.names(model), *huggingface_names.outer_names(model)):
        yield name._replace(their_name=name.their_name.removeprefix("model."))
