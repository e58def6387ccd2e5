"""Import a fairseq Transformer checkpoint: experiment, vocabulary, weights.

Its outputs begin with the word that ends them: BOS, which is an id of its own here, has the same
embedding, and is never said. All other ids keep what they have, the padding too, so that
probabilities are the same: only their order is Heed's. The first position is 2 there.
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
from interop.fields import number, reject_unsupported
from interop.imported_model import UNSAID, ImportedModel
from interop.torch_archive import read_arrays, read_content
from model import ConfigError, TransformerConfig

ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "swish": "silu"}
_FIRST = 2  # position: that of the padding's id is nobody's
_ORDER = (1, 2, 2, 3, 0)  # their ids of our PAD, BOS, EOS, UNK, and of their <s>
_MARKS = 4  # their special words, which no dictionary has
_STANDARD = (  # one class, other sizes
    *("transformer", "transformer_tiny", "transformer_iwslt_de_en", "transformer_wmt_en_de"),
    *("transformer_vaswani_wmt_en_de_big", "transformer_vaswani_wmt_en_fr_big"),
    *("transformer_wmt_en_de_big", "transformer_wmt_en_de_big_t2t"),
)
_NEUTRAL: dict[str, tuple] = {  # their name, and the values that mean what is here without it
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
_SAME = ("embed_dim", "ffn_embed_dim", "attention_heads", "normalize_before", "learned_pos")
_UNREAD = {f"{side}.{name}" for side in ("encoder", "decoder")
           for name in ("version", "embed_positions._float_tensor")}  # fmt: skip


def read_fairseq(
    place: Path, source_language: str = "", target_language: str = ""
) -> ImportedModel:
    """The model of a folder or a checkpoint; languages that are given say which side is which.

    Raises DataError for what is missing, damaged or not supported, with file and field.
    """
    file = find_checkpoint(place)
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
    longest = number(file, settings, "max_target_positions", 1024)
    data = DataConfig(
        kind="text",
        source_language=sides.languages[0],
        target_language=sides.languages[1],
        vocab_size=vocabulary.source.vocab_size,
        shared_vocab=vocabulary.shared,
        max_length=min(DataConfig.max_length, model.max_positions or DataConfig.max_length),
    )
    search = search_settings(file, generation, longest)
    experiment = Experiment(model=model, data=data, search=search)
    for language, dictionary, side in zip(
        sides.languages, sides.files, ("encoder", "decoder"), strict=True
    ):
        name, tokenizer = f"{side}.embed_tokens.weight", vocabulary[side == "decoder"]
        rows = len(arrays.get(name, ()))
        if rows and rows != tokenizer.vocab_size - 1:
            raise DataError(
                f"{dictionary} has {tokenizer.vocab_size - 1 - _MARKS} words, and there are "
                f"{_MARKS} more, but {file} has {rows} of {language} in {name}: is it another "
                "model's?"
            )
    return ImportedModel(experiment, vocabulary, _params(file, arrays, model))


def model_config(
    file: Path, settings: dict[str, Any], source: int, target: int
) -> TransformerConfig:
    """The model of a checkpoint's settings, with vocabularies of our sizes.

    Raises DataError, naming the field, for what is not here.
    """
    for name in _SAME:
        one, other = (settings.get(f"{side}_{name}") or False for side in ("encoder", "decoder"))
        if one != other:
            raise DataError(
                f"{file}: encoder_{name}={one} and decoder_{name}={other} differ, which is not "
                "supported"
            )
    width = number(file, settings, "encoder_embed_dim")
    reject_unsupported(file, settings, {f"decoder_{end}put_dim": (width,) for end in ("in", "out")})
    learned = bool(settings.get("encoder_learned_pos"))
    lengths = [number(file, settings, f"max_{side}_positions", 1024)
               for side in ("source", "target")]  # fmt: skip
    if learned and lengths[0] != lengths[1]:
        raise DataError(
            f"{file}: max_source_positions={lengths[0]} and max_target_positions={lengths[1]} "
            "differ, which is not supported of learned positions"
        )
    every, tied = (bool(settings.get(f"share_{what}"))
                   for what in ("all_embeddings", "decoder_input_output_embed"))  # fmt: skip
    drops = [settings.get(name) or 0.0
             for name in ("dropout", "attention_dropout", "activation_dropout")]  # fmt: skip
    try:
        return TransformerConfig(
            vocab_size=source,
            target_vocab_size=None if target == source else target,
            encoder_layers=number(file, settings, "encoder_layers"),
            decoder_layers=number(file, settings, "decoder_layers"),
            d_model=width,
            d_ff=number(file, settings, "encoder_ffn_embed_dim"),
            num_heads=number(file, settings, "encoder_attention_heads"),
            norm="pre" if settings.get("encoder_normalize_before") else "post",
            norm_epsilon=1e-5,
            positions="learned" if learned else "sinusoidal_tensor2tensor",
            position_offset=0 if learned else _FIRST,
            max_length=lengths[0],
            activation=ACTIVATIONS[settings.get("activation_fn") or "relu"],
            attention_bias=True,
            tying="all" if every else "decoder" if tied else "none",
            scale_embedding=not settings.get("no_scale_embedding"),
            output_bias=True,
            dropout=float(drops[0]),
            attention_dropout=float(drops[1]),
            ff_dropout=float(drops[2] or settings.get("relu_dropout") or 0.0),
        )
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None


def _params(file: Path, items: dict[str, np.ndarray], model: TransformerConfig) -> dict[str, Any]:
    """The parameters of `model`; raises DataError where an array is missing or of another size."""
    arrays = imported_model.Arrays(file, items, "its settings")
    source, target = (f"{side}.embed_tokens.weight" for side in ("encoder", "decoder"))
    output = ("decoder.output_projection.weight", "decoder.embed_out")
    tables = {"all": (source,), "source": (source,), "target": (target,), "output": output}
    # What is one table is there once for each of its uses.
    alike = {"all": (target, *output), "target": output if model.tying == "decoder" else ()}

    def table(which: str, shape: tuple[int, int]) -> np.ndarray:
        shape = shape[0] - 1, shape[1]  # BOS is ours alone
        found = arrays.take(shape, *tables[which])
        for name in alike.get(which, ()):
            if name in items and not np.array_equal(arrays.take(shape, name), found):
                raise DataError(f"{file}: {name} is another than {tables[which][0]}")
        return found

    id_maps = [np.array([*_ORDER, *range(_MARKS, size - 1)])
              for size in (model.vocab_size, model.target_vocab)]  # fmt: skip
    params = imported_model.layers(model, _names(model), arrays)
    params |= imported_model.words(model, id_maps, 0, table, np.zeros(len(id_maps[1]), np.float32))
    params["output_bias"][BOS] = UNSAID
    for name in sorted(items.keys() - arrays.asked - _UNREAD):
        raise DataError(f"{file}: its settings do not say what {name} is for")
    return params


def _names(model: TransformerConfig):
    """What Hugging Face calls them, without its first word."""
    for named in (*huggingface_names.names(model), *huggingface_names.around(model)):
        yield named._replace(their_name=named.their_name.removeprefix("model."))
