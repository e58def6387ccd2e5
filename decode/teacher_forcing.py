"""Teacher forcing: token scores, attention and alignment of given outputs."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from data.batch import EOS, PAD, pad_rows, shift_right
from data.vocabulary import Vocabulary
from decode.batching import fitting_shape
from decode.options import InputError
from model import Transformer, TransformerConfig
from model.family import Family
from model.transformer import unstack_layers


class TeacherForced(NamedTuple):
    """Scores and attention of each target token [B,T] that is not PAD."""

    token_scores: Array  # [B,T] float32 log-probabilities; 0 at PAD
    attention: Array | None  # [B,N,T,S] cross-attention of N layers, the mean over heads


def teacher_force(model: Transformer, params, src: Array, tgt: Array) -> TeacherForced:
    """Teacher-force src [B,S], tgt [B,T], each followed by EOS and PAD; pure, to be jitted.

    The model must be unrolled (`model.transformer.unstack_layers`): a scan returns no attention.
    """
    logits, collections = model.apply(
        {"params": params}, src, shift_right(tgt), mutable=["intermediates"]
    )
    log_probs = jax.nn.log_softmax(logits)
    scores = jnp.take_along_axis(log_probs, tgt[..., None], axis=-1)[..., 0]
    layers = collections["intermediates"]
    weights = [
        layers[f"decoder_{i}"]["cross_attention"]["weights"][0].mean(1)
        for i in range(model.config.decoder_layers)
    ]
    return TeacherForced(jnp.where(tgt == PAD, 0.0, scores), jnp.stack(weights, 1))


@cache
def _forcing(config: TransformerConfig, attention: bool) -> Callable[..., TeacherForced]:
    """`teacher_force` for a config, compiled once; its attention [B,T,S] is the alignment layer's.

    That is the penultimate layer, which aligns best (Garg et al. 2019).
    """
    layer = max(config.decoder_layers - 2, 0)

    def forced(params, src, tgt):
        scores, maps = teacher_force(Transformer(config), params, src, tgt)
        return TeacherForced(scores, maps[:, layer] if attention and maps is not None else None)

    return jax.jit(forced)


def teacher_force_pairs(
    model: Family,
    params,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    progress: Callable[[int], None] | None = None,
    tokens_per_batch: int = 4096,
    attention: bool = True,
    precompiled_shapes: Sequence[tuple[int, int]] = (),
) -> Iterator[tuple[int, TeacherForced]]:
    """Teacher-force pairs: yields each pair's index and its `teacher_force` result, in any order.

    Results are [T] and [T,S]. A pair is a source's and a target's ids, both with EOS, within the
    model's positions. Pairs of similar length are batched, in few shapes, in float32; if one of the
    (rows, length) of `precompiled_shapes` holds a batch, it is used (decode/batching.py).
    `precompile_teacher_forcing` compiles one in advance.
    """
    config, params = unstack_layers(replace(model.config, dtype="float32"), params)
    forced, longest = _forcing(config, attention), config.max_positions
    padded_lengths = []
    for pair in pairs:
        pair_length = max(map(len, pair))
        shape = fitting_shape(precompiled_shapes, 1, pair_length)
        padded_length = shape[1] if shape else max(16, 1 << (pair_length - 1).bit_length())
        padded_lengths.append(min(padded_length, longest or padded_length))
    for padded_length in sorted(set(padded_lengths)):
        members = [i for i, length in enumerate(padded_lengths) if length == padded_length]
        while members:
            max_rows = 1 << (len(members) - 1).bit_length()
            rows = max(1, min(tokens_per_batch // padded_length, max_rows))
            if shape := fitting_shape(precompiled_shapes, len(members), padded_length):
                rows, _ = shape
            batch, members = members[:rows], members[rows:]
            src, tgt = (
                pad_rows([pairs[i][side] for i in batch], rows, padded_length) for side in (0, 1)
            )
            result = jax.device_get(forced(params, jnp.asarray(src), jnp.asarray(tgt)))
            for row, i in enumerate(batch):
                source, target = map(len, pairs[i])
                maps = result.attention[row, :target, :source] if attention else None
                yield i, TeacherForced(result.token_scores[row, :target], maps)
            if progress:
                progress(len(batch))


def precompile_teacher_forcing(model: Family, params, rows: int, length: int) -> None:
    """Compile `teacher_force_pairs` for one of its `precompiled_shapes`."""
    pair = [EOS] * length, [EOS]
    for _ in teacher_force_pairs(model, params, [pair] * rows, precompiled_shapes=[(rows, length)]):
        pass


def score_pairs(
    model: Family,
    params,
    vocabulary: Vocabulary,
    sources: Sequence[str],
    targets: Sequence[str],
    progress: Callable[[int], None] | None = None,
    max_tokens: int = 2048,
) -> list[list[float]]:
    """Log-probabilities of each pair's target tokens, EOS last, in the order of the pairs.

    Raises InputError for a line of more than `max_tokens` tokens, EOS included, or of more tokens
    than the model has positions: memory grows with the square of the length.
    """
    longest = model.config.max_positions
    source, target = (
        [[*row, EOS] for row in tokenizer.encode(list(lines))]
        for tokenizer, lines in zip(vocabulary, (sources, targets), strict=True)
    )
    pairs = list(zip(source, target, strict=True))
    for number, pair in enumerate(pairs, 1):
        for side, ids in zip(("source", "target"), pair, strict=True):
            if longest and len(ids) > longest:
                raise InputError(
                    f"--{side}, line {number} has {len(ids)} tokens with EOS, more than the "
                    f"model's {longest} positions: shorten it"
                )
            if len(ids) > max_tokens:
                raise InputError(
                    f"--{side}, line {number} has {len(ids)} tokens with EOS, more than "
                    f"--max_tokens={max_tokens}: shorten it, or raise --max_tokens"
                )
    scores: list[list[float]] = [[] for _ in pairs]
    for i, forced in teacher_force_pairs(model, params, pairs, progress, attention=False):
        scores[i] = forced.token_scores.tolist()
    return scores


def perplexity(scores: Sequence[float]) -> float:
    """Perplexity per token of log-probabilities; infinite beyond the largest float."""
    try:
        return math.exp(-sum(scores) / len(scores))
    except OverflowError:
        return math.inf


def alignment(attention: np.ndarray) -> list[tuple[int, int]]:
    """Word alignment as (source, target) positions from attention [T,S].

    Each target token is aligned to the source position with the highest attention.
    """
    return [(int(row.argmax()), t) for t, row in enumerate(attention)]
