"""Export to the Hugging Face Marian format.

Hugging Face's Marian is post-norm, with concatenated sinusoids: if Heed's are interleaved, the
width is permuted, which gives an equivalent model. Heed's PAD and its logit have no counterpart in
the format and are dropped.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save

from data.atomic_write import write_atomic
from data.batch import BOS, EOS, UNK
from data.marian_tokenizer import MarianTokenizer, MarianVocab
from data.tokenizer import Tokenizer
from experiments.workdir import LoadedModel
from interop.hf_param_names import names
from model import ConfigError, Transformer, TransformerConfig
from model.transformer import unstack_layers
from train.state import param_shapes

_ACTIVATIONS = {"relu": "relu", "gelu": "gelu", "silu": "swish"}
_EPSILON = 1e-5  # the only value in the format
_STOPPING = {"unbeaten": False, "full": True, "unbeatable": "never", "limit": "never"}
_LIMIT = 511  # the format has no limit relative to the source's length


def write_marian(trained: LoadedModel, folder: Path, log: Callable[[str], None]) -> None:
    """Write a run's model to a folder; `log` receives warnings about differences.

    Raises ConfigError, naming the setting, if Marian does not support the model.
    """
    c, params = unstack_layers(trained.model.config, jax.device_get(trained.params))
    check(c)
    if c.norm_epsilon != _EPSILON:
        log(f"model.norm_epsilon={c.norm_epsilon} becomes {_EPSILON}, the only value in Marian")
    vocabulary = trained.vocabulary
    separate = not vocabulary.shared
    tables = [_marian_vocab(tokenizer) for tokenizer in vocabulary]
    order = _order(c.target_vocab, separate)
    marian_ids = {id: index for index, id in enumerate(order)}
    special = dict(
        pad_token_id=marian_ids[BOS],
        eos_token_id=marian_ids[EOS],
        decoder_start_token_id=marian_ids[BOS],
    )
    forced = marian_ids[EOS] if trained.experiment.search.free_eos_at_limit else None
    generation = _generation(trained, special | dict(forced_eos_token_id=forced), marian_ids, log)
    files = {
        "config.json": settings(
            c, special | dict(forced_eos_token_id=forced), max(1024, generation["max_length"])
        ),
        "generation_config.json": generation,
        "tokenizer_config.json": _tokenizer(trained, tables[0], separate),
    }
    content = {name: json.dumps(file, indent=2).encode() for name, file in files.items()}
    sides = zip(("vocab.json", "target_vocab.json"), vocabulary, tables, strict=True)
    for name, tokenizer, table in [*sides][: 2 if separate else 1]:
        words = ["", table.padding, table.end, table.unknown, *table.words]
        side_order = _order(tokenizer.vocab_size, separate)
        ids = {words[id]: index for index, id in enumerate(side_order)}
        content[name] = json.dumps(ids, ensure_ascii=False, indent=1).encode()
    for side, tokenizer in zip(("source", "target"), vocabulary, strict=True):
        content[f"{side}.spm"] = _sentencepiece_model(tokenizer)
    id_maps = _order(c.vocab_size, separate), order
    content["model.safetensors"] = save(tensors(c, params, *id_maps), {"format": "pt"})
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        write_atomic(folder / name, data)


def check(c: TransformerConfig) -> None:
    """Raise ConfigError, naming the setting, if Marian does not support the model."""
    supported = {
        "norm": (c.norm, ("post",)),
        "norm_kind": (c.norm_kind, ("layer",)),
        "embedding_norm": (c.embedding_norm, (False,)),
        "positions": (c.positions, ("sinusoidal", "sinusoidal_concat")),
        "position_offset": (c.position_offset, (0,)),
        "activation": (c.activation, tuple(_ACTIVATIONS)),
        "decoder_mixer": (c.decoder_mixer, ("attention",)),
        "num_kv_heads": (c.kv_heads, (c.num_heads,)),
        "d_k": (c.key_width, (c.d_model // c.num_heads,)),
        "d_v": (c.value_width, (c.d_model // c.num_heads,)),
    }
    for name, (value, choices) in supported.items():
        if value not in choices:
            raise ConfigError(
                f"model.{name}={value} has no counterpart in Hugging Face's Marian, only "
                f"{' or '.join(map(str, choices))}"
            )


def tensors(
    c: TransformerConfig, params, source_order: list[int], target_order: list[int]
) -> dict[str, np.ndarray]:
    """Hugging Face tensors by name; rows of embeddings are Heed's ids in these orders."""
    boxes = param_shapes(Transformer(c))
    width = np.arange(c.d_model)
    if c.positions == "sinusoidal":  # sines first, then cosines
        width = np.concatenate([width[::2], width[1::2]])

    def parameter(*path: str) -> np.ndarray | None:
        leaf, box = params, boxes
        for key in path:
            if key not in leaf:
                return None
            leaf, box = leaf[key], box[key]
        array = np.asarray(leaf, np.float32)
        for axis, name in enumerate(box.names):
            if name == "embed":
                array = array.take(width, axis)
        return array

    def table(*path: str) -> np.ndarray:
        array = parameter(*path)
        assert array is not None
        return array

    result: dict[str, np.ndarray] = {}
    for name in names(c):
        value = parameter(*name.param_path)
        if value is None:  # a bias that Heed's model lacks
            weight = result[name.their_name.removesuffix("bias") + "weight"]
            value = np.zeros(len(weight), np.float32)
        result[name.their_name] = name.store(value)
    if c.tying == "all":
        result["model.shared.weight"] = table("embedding", "table")[target_order]
    else:
        for side, their_name, order in (
            ("source", "encoder", source_order),
            ("target", "decoder", target_order),
        ):
            words = table(f"{side}_embedding", "table")
            result[f"model.{their_name}.embed_tokens.weight"] = words[order]
    if c.tying == "none":
        result["lm_head.weight"] = np.ascontiguousarray(table("output").T[target_order])
    bias = parameter("output_bias")
    bias = np.zeros(c.target_vocab, np.float32) if bias is None else bias
    result["final_logits_bias"] = bias[target_order][None]
    return result


def _order(size: int, separate: bool) -> list[int]:
    """Heed's ids in export order; padding is last, or third if the sides have separate ids."""
    words = range(UNK + 1, size)
    return [EOS, UNK, BOS, *words] if separate else [EOS, UNK, *words, BOS]


def _marian_vocab(tokenizer: Tokenizer) -> MarianVocab:
    if isinstance(tokenizer, MarianTokenizer):
        return tokenizer.table
    return MarianVocab(tuple(tokenizer.pieces(range(UNK + 1, tokenizer.vocab_size))))


def _sentencepiece_model(tokenizer: Tokenizer) -> bytes:
    return tokenizer.models[0] if isinstance(tokenizer, MarianTokenizer) else tokenizer.to_bytes()


def settings(c: TransformerConfig, special: Mapping[str, int | None], positions: int) -> dict:
    """Hugging Face config.json of a model, without Heed's PAD; `special` are its special ids."""
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in (("ffn_dim", c.d_ff), ("attention_heads", c.num_heads))
    }
    return {
        "architectures": ["MarianMTModel"],
        "model_type": "marian",
        "is_encoder_decoder": True,
        "vocab_size": c.vocab_size - 1,
        "decoder_vocab_size": c.target_vocab - 1,
        "d_model": c.d_model,
        "encoder_layers": c.encoder_layers,
        "decoder_layers": c.decoder_layers,
        **sides,
        "activation_function": _ACTIVATIONS[c.activation],
        "scale_embedding": c.scale_embedding,
        "share_encoder_decoder_embeddings": c.tying == "all",
        "tie_word_embeddings": c.tying != "none",
        "max_position_embeddings": positions,
        "dropout": c.dropout,
        "attention_dropout": c.attention_dropout,
        "activation_dropout": c.mlp_dropout,
        "static_position_embeddings": True,
        "bos_token_id": None,
        **special,
    }


def _generation(
    trained: LoadedModel,
    special: dict[str, Any],
    marian_ids: dict[int, int],
    log: Callable[[str], None],
) -> dict[str, Any]:
    s = trained.experiment.search
    alpha = {"average": s.alpha, "none": 0.0}.get(s.penalty)
    if alpha is None and s.beam_size > 1:
        log(
            f"search.penalty={s.penalty} has no counterpart in Marian: scores are divided by "
            "length, as with --penalty=average --alpha=1"
        )
    if not s.max_length:
        log(f"outputs are limited to {_LIMIT} tokens, independent of the source length")
    banned = [[marian_ids[BOS]]] + [[marian_ids[UNK]]] * (not s.allow_unknown)
    return {
        "num_beams": s.beam_size,
        "length_penalty": 1.0 if alpha is None else alpha,
        "early_stopping": _STOPPING[s.stopping],
        "min_length": s.min_length,
        "max_length": (s.max_length or _LIMIT) + 1,  # with the first token
        "no_repeat_ngram_size": s.no_repeat_ngrams,
        "renormalize_logits": s.renormalize,
        "bad_words_ids": banned,
        **({"forced_bos_token_id": marian_ids[s.forced_bos_id]} if s.forced_bos_id else {}),
        **special,
    }


def _tokenizer(trained: LoadedModel, table: MarianVocab, separate: bool) -> dict[str, Any]:
    data = asdict(trained.experiment.data)
    marian_ids = {
        id: index for index, id in enumerate(_order(UNK + 1 + len(table.words), separate))
    }
    ids = table.ids()
    added = {
        str(marian_ids[ids[word]]): {"content": word, "special": False} for word in table.whole
    }
    return {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": data["source_language"],
        "target_lang": data["target_language"],
        "eos_token": table.end,
        "unk_token": table.unknown,
        "pad_token": table.padding,
        "additional_special_tokens": list(table.special),
        **({"added_tokens_decoder": added} if added else {}),
        "clean_up_tokenization_spaces": table.clean_up,
        "separate_vocabs": separate,
    }
