"""Export to a Hugging Face folder of a Marian model.

Theirs is post-norm, with sinusoids in halves: where ours are interleaved, the model's width is put
in another order, which is the same model. PAD, which theirs has no counterpart of, is left out, and
with it what its logit would take of the others' probabilities.
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
_EPSILON = 1e-5  # theirs has no other
_STOPPING = {"unbeaten": False, "full": True, "unbeatable": "never", "limit": "never"}
_LIMIT = 511  # theirs has no limit that follows the source's length


def write_marian(trained: LoadedModel, folder: Path, log: Callable[[str], None]) -> None:
    """Writes the model of a run into a folder; tells by `log` what cannot be quite the same.

    Raises ConfigError, naming the setting, where Marian has no such model.
    """
    c, params = unstack_layers(trained.model.config, jax.device_get(trained.params))
    check(c)
    if c.norm_epsilon != _EPSILON:
        log(f"model.norm_epsilon={c.norm_epsilon} becomes {_EPSILON}, which Marian has")
    vocabulary = trained.vocabulary
    apart = not vocabulary.shared
    tables = [_table(tokenizer) for tokenizer in vocabulary]
    order = _order(c.target_vocab, apart)
    places = {id: place for place, id in enumerate(order)}
    special = dict(
        pad_token_id=places[BOS], eos_token_id=places[EOS], decoder_start_token_id=places[BOS]
    )
    forced = places[EOS] if trained.experiment.search.free_eos_at_limit else None
    generation = _generation(trained, special | dict(forced_eos_token_id=forced), places, log)
    files = {
        "config.json": settings(
            c, special | dict(forced_eos_token_id=forced), max(1024, generation["max_length"])
        ),
        "generation_config.json": generation,
        "tokenizer_config.json": _tokenizer(trained, tables[0], apart),
    }
    content = {name: json.dumps(file, indent=2).encode() for name, file in files.items()}
    sides = zip(("vocab.json", "target_vocab.json"), vocabulary, tables, strict=True)
    for name, tokenizer, table in [*sides][: 2 if apart else 1]:
        words = ["", table.padding, table.end, table.unknown, *table.words]
        listed = _order(tokenizer.vocab_size, apart)
        ids = {words[id]: place for place, id in enumerate(listed)}
        content[name] = json.dumps(ids, ensure_ascii=False, indent=1).encode()
    for side, tokenizer in zip(("source", "target"), vocabulary, strict=True):
        content[f"{side}.spm"] = _cuts(tokenizer)
    id_maps = _order(c.vocab_size, apart), order
    content["model.safetensors"] = save(tensors(c, params, *id_maps), {"format": "pt"})
    folder.mkdir(parents=True, exist_ok=True)
    for name, each in content.items():
        write_atomic(folder / name, each)


def check(c: TransformerConfig) -> None:
    """Raises ConfigError, naming the setting, where Marian has no such model."""
    wanted = {
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
    for name, (value, known) in wanted.items():
        if value not in known:
            raise ConfigError(
                f"model.{name}={value} has no counterpart in Hugging Face's Marian, only "
                f"{' or '.join(map(str, known))}"
            )


def tensors(
    c: TransformerConfig, params, source_order: list[int], target_order: list[int]
) -> dict[str, np.ndarray]:
    """Their tensors by name; rows of embeddings are those of our ids in these orders."""
    boxes = param_shapes(Transformer(c))
    width = np.arange(c.d_model)
    if c.positions == "sinusoidal":  # the sines first, then the cosines
        width = np.concatenate([width[::2], width[1::2]])

    def parameter(*path: str) -> np.ndarray | None:
        leaf, box = params, boxes
        for key in path:
            if key not in leaf:
                return None
            leaf, box = leaf[key], box[key]
        found = np.asarray(leaf, np.float32)
        for axis, name in enumerate(box.names):
            if name == "embed":
                found = found.take(width, axis)
        return found

    def table(*path: str) -> np.ndarray:
        there = parameter(*path)
        assert there is not None
        return there

    found: dict[str, np.ndarray] = {}
    for named in names(c):
        param_path = parameter(*named.param_path)
        if param_path is None:  # a bias that ours is without
            weight = found[named.their_name.removesuffix("bias") + "weight"]
            param_path = np.zeros(len(weight), np.float32)
        found[named.their_name] = named.store(param_path)
    if c.tying == "all":
        found["model.shared.weight"] = table("embedding", "table")[target_order]
    else:
        for side, their_name, order in (
            ("source", "encoder", source_order),
            ("target", "decoder", target_order),
        ):
            words = table(f"{side}_embedding", "table")
            found[f"model.{their_name}.embed_tokens.weight"] = words[order]
    if c.tying == "none":
        found["lm_head.weight"] = np.ascontiguousarray(table("output").T[target_order])
    bias = parameter("output_bias")
    bias = np.zeros(c.target_vocab, np.float32) if bias is None else bias
    found["final_logits_bias"] = bias[target_order][None]
    return found


def _order(size: int, apart: bool) -> list[int]:
    """Our ids by theirs; padding is last, or where sides differ, where it is alike on both."""
    others = range(UNK + 1, size)
    return [EOS, UNK, BOS, *others] if apart else [EOS, UNK, *others, BOS]


def _table(tokenizer: Tokenizer) -> MarianVocab:
    if isinstance(tokenizer, MarianTokenizer):
        return tokenizer.table
    return MarianVocab(tuple(tokenizer.pieces(range(UNK + 1, tokenizer.vocab_size))))


def _cuts(tokenizer: Tokenizer) -> bytes:
    return tokenizer.models[0] if isinstance(tokenizer, MarianTokenizer) else tokenizer.to_bytes()


def settings(c: TransformerConfig, special: Mapping[str, int | None], positions: int) -> dict:
    """Their config.json of a model, which has no PAD of ours; `special` are their special ids."""
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
        "activation_dropout": c.ff_dropout,
        "static_position_embeddings": True,
        "bos_token_id": None,
        **special,
    }


def _generation(
    trained: LoadedModel,
    special: dict[str, Any],
    places: dict[int, int],
    log: Callable[[str], None],
) -> dict[str, Any]:
    s = trained.experiment.search
    alpha = {"average": s.alpha, "none": 0.0}.get(s.penalty)
    if alpha is None and s.beam_size > 1:
        log(
            f"search.penalty={s.penalty} has no counterpart there: scores will be divided by "
            "length, as by --penalty=average --alpha=1"
        )
    if not s.max_length:
        log(f"outputs there may have {_LIMIT} tokens, however long their source is")
    banned = [[places[BOS]]] + [[places[UNK]]] * (not s.allow_unknown)
    return {
        "num_beams": s.beam_size,
        "length_penalty": 1.0 if alpha is None else alpha,
        "early_stopping": _STOPPING[s.stopping],
        "min_length": s.min_length,
        "max_length": (s.max_length or _LIMIT) + 1,  # with what an output begins with
        "no_repeat_ngram_size": s.no_repeat_ngrams,
        "renormalize_logits": s.renormalize,
        "bad_words_ids": banned,
        **({"forced_bos_token_id": places[s.forced_bos_id]} if s.forced_bos_id else {}),
        **special,
    }


def _tokenizer(trained: LoadedModel, table: MarianVocab, apart: bool) -> dict[str, Any]:
    data = asdict(trained.experiment.data)
    places = {id: place for place, id in enumerate(_order(UNK + 1 + len(table.words), apart))}
    ids = table.ids()
    kept = {str(places[ids[word]]): {"content": word, "special": False} for word in table.whole}
    return {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": data["source_language"],
        "target_lang": data["target_language"],
        "eos_token": table.end,
        "unk_token": table.unknown,
        "pad_token": table.padding,
        "additional_special_tokens": list(table.special),
        **({"added_tokens_decoder": kept} if kept else {}),
        "clean_up_tokenization_spaces": table.clean_up,
        "separate_vocabs": apart,
    }
