"""Import a Hugging Face Marian model (OPUS-MT).

Ids are permuted so that the special ids are Heed's: Marian's padding, with which decoder inputs
start, becomes BOS, followed by its EOS and UNK, then all others in order. Heed's PAD, which is
never read or output, is an additional id with a very low logit.
"""

import reprlib
from pathlib import Path
from typing import Any

import numpy as np

from data.batch import UNK
from data.errors import DataError
from data.json_file import read_json
from data.marian_tokenizer import MarianTokenizer, MarianVocab
from data.vocabulary import Vocabulary
from experiments.config import DataConfig, Experiment
from interop import imported_model, tokenizer_config
from interop.config_json import Bart, Marian, family
from interop.fields import Id, read_bytes, read_settings
from interop.generation_config import read_generation, search_settings
from interop.hf_param_names import names
from interop.imported_model import ImportedModel
from interop.tensor_files import read_tensors
from interop.tokenizer_config import TokenizerConfig
from model import ConfigError, TransformerConfig

ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "silu", "swish": "silu"}
_NEUTRAL: dict[str, tuple] = {  # settings of older or related classes
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


def read_marian(
    folder: Path, source_language: str = "", target_language: str = ""
) -> ImportedModel:
    """Import a folder's model; given languages override those of the tokenizer's config.

    Raises DataError for missing, corrupt or unsupported files and fields, naming them.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    file = folder / "config.json"
    config = read_config(file)
    model = model_config(file, config)
    weights, tensors = read_tensors(folder)
    imported_model.check_sizes(file, model, *imported_model.count(tensors))
    tokenizer = tokenizer_config.read_tokenizer_config(folder, _TOKENIZER)
    vocabulary, id_maps = read_vocabulary(folder, model, config, tokenizer)
    pad, eos, unknown = id_maps[1][1:4].tolist()
    search = search_settings(
        *read_generation(folder),
        pad=pad,
        eos=eos,
        unknown=unknown,
        positions=config.max_position_embeddings,
    )
    data = DataConfig(
        kind="text",
        source_language=source_language or tokenizer.source_lang or "source",
        target_language=target_language or tokenizer.target_lang or "target",
        vocab_size=vocabulary.source.vocab_size,
        shared_vocab=vocabulary.shared,
    )
    experiment = Experiment(model=model, data=data, search=search)
    arrays = imported_model.TensorReader(weights, tensors, "config.json")
    return ImportedModel(experiment, vocabulary, _params(config, model, arrays, id_maps))


def read_config(file: Path) -> Marian:
    """Read a config.json; raises DataError, naming unsupported fields."""
    model_type = family(file)
    if model_type != "marian":
        raise DataError(
            f"{file}: model_type={reprlib.repr(model_type)} is not supported, only 'marian'"
        )
    return read_settings(file, Marian, _NEUTRAL)


def model_config(file: Path, config: Marian) -> TransformerConfig:
    """Convert a config.json to a TransformerConfig; raises DataError for unsupported fields."""
    shared, tied = config.share_encoder_decoder_embeddings, config.tie_word_embeddings
    source = config.vocab_size
    target = source if shared else config.decoder_vocab_size or source
    try:
        return TransformerConfig(
            vocab_size=source + 1,
            target_vocab_size=None if target == source else target + 1,
            positions="sinusoidal_concat",
            tying="none" if not tied else "all" if shared else "decoder",
            **shared_settings(file, config),
        )
    except ConfigError as error:
        raise DataError(f"{file}: {error}") from None


def shared_settings(file: Path, config: Bart) -> dict[str, Any]:
    """TransformerConfig settings that Marian and BART models share.

    Raises DataError, naming the field, for unsupported values.
    """
    for name in "ffn_dim", "attention_heads":
        sides = [getattr(config, f"{side}_{name}") for side in ("encoder", "decoder")]
        if sides[0] != sides[1]:
            raise DataError(
                f"{file}: encoder_{name}={sides[0]} and decoder_{name}={sides[1]} differ, which is "
                "not supported"
            )
    if config.activation_function not in ACTIVATIONS:
        choices = ", ".join(ACTIVATIONS)
        raise DataError(
            f"{file}: activation_function={reprlib.repr(config.activation_function)} is not "
            f"supported, only {choices}"
        )
    return dict(
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        d_model=config.d_model,
        d_ff=config.encoder_ffn_dim,
        num_heads=config.encoder_attention_heads,
        norm_epsilon=1e-5,
        activation=ACTIVATIONS[config.activation_function],
        attention_bias=True,
        scale_embedding=config.scale_embedding,
        output_bias=True,
        dropout=config.dropout,
        attention_dropout=config.attention_dropout,
        mlp_dropout=config.activation_dropout,
    )


def read_vocabulary(
    folder: Path, model: TransformerConfig, config: Marian, settings: TokenizerConfig
) -> tuple[Vocabulary, list[np.ndarray]]:
    """Read both tokenizers, and for each the file's ids by Heed's ids; 0 for Heed's id 0.

    Raises DataError for files that are missing or inconsistent.
    """
    file, separate = folder / tokenizer_config.NAME, settings.separate_vocabs
    tables = [folder / "vocab.json"]
    tables.append(folder / "target_vocab.json" if separate else tables[0])
    if separate and config.share_encoder_decoder_embeddings:
        raise DataError(f"{file}: separate_vocabs is not possible with shared embeddings")
    words, id_maps = [], []
    marks = [settings.mark(name, default) for name, default in _MARKS.items()]
    added = tokenizer_config.added_words(file, settings)
    # Hugging Face's class omits listed words from outputs, and saves special words in the list.
    special = {word for _, word in settings.listed()}
    special |= {word.content for word in added.values() if word.special}
    unsplit = special | {word.content for word in added.values()}
    for side, size in zip(tables, (model.vocab_size, model.target_vocab), strict=True):
        ids = _ids(side, size - 1)
        for mark in marks:
            if mark not in ids:
                raise DataError(f"{side} lacks {mark!r}, which {file} names")
        for id, word in added.items():
            if ids.get(word.content) != id:
                raise DataError(f"{side}: {word.content!r} has a different id than in {file}")
        special_ids = [ids[mark] for mark in marks]
        ordinary = [word for word in sorted(ids, key=ids.__getitem__) if word not in marks]
        id_maps.append(np.array([0, *special_ids, *(ids[word] for word in ordinary)]))
        unsplit_words = [word for word in ordinary if word in unsplit]
        words.append(
            MarianVocab(
                tuple(ordinary),
                *(marks[1], marks[2], marks[0]),
                special=tuple(word for word in unsplit_words if word in special),
                clean_up=settings.clean_up_tokenization_spaces,
                whole=tuple(word for word in unsplit_words if word not in special),
            )
        )
    if (id_maps[0][1 : UNK + 1] != id_maps[1][1 : UNK + 1]).any():
        raise DataError(f"{tables[1]}: {', '.join(marks)} have other ids than in {tables[0]}")
    source, target = (read_bytes(folder / f"{side}.spm") for side in ("source", "target"))
    # With a shared table, Hugging Face detokenizes outputs with the source's model.
    pairs = (source, source), (target, target if separate else source)
    sides = []
    for name, pair, table in zip(("source", "target"), pairs, words, strict=True):
        try:
            sides.append(MarianTokenizer.make(*pair, table))
        except DataError as error:
            raise DataError(f"{folder / name}.spm: {error}") from None
    return Vocabulary(*sides), id_maps


_MARKS = {"pad": "<pad>", "eos": "</s>", "unk": "<unk>"}


def _ids(file: Path, size: int) -> dict[str, int]:
    ids = read_json(file, dict[str, Id])
    if len(ids) != size or sorted(ids.values()) != [*range(size)]:
        raise DataError(
            f"{file} has {len(ids)} words, but config.json says vocab_size={size}: it needs one "
            f"word for each id from 0 to {size - 1}"
        )
    return ids


def _params(
    config: Marian,
    model: TransformerConfig,
    arrays: imported_model.TensorReader,
    id_maps: list[np.ndarray],
) -> dict[str, Any]:
    """Convert the parameters of `model`; raises DataError for missing or misshapen tensors."""
    shared, output = "model.shared.weight", "lm_head.weight"
    encoder, decoder = (f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder"))
    # A tied table may be saved under any one of its names.
    tied = (output,) if config.tie_word_embeddings else ()
    tables = {
        "all": (shared, encoder, decoder, output),
        "source": (encoder, shared),
        "target": (decoder, shared, *tied),
        "output": (output, decoder, shared),
    }

    bias = arrays.read_or_zeros((1, len(id_maps[1]) - 1), "final_logits_bias")
    params = imported_model.layer_params(model, names(model), arrays)
    table = arrays.table_reader(tables)
    return params | imported_model.embedding_params(model, id_maps, 1, table, bias[0])
