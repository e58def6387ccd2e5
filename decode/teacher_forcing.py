"""Teacher forcing of given outputs: scores, attention, alignment."""

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
from model.transformer import unstack_layers


class TeacherForced(NamedTuple):
    """Of each target token [B,T], where it is not PAD."""

    token_scores: Array  # [B,T] float32 log-probabilities; 0 at PAD
    attention: Array | None  # [B,N,T,S] cross-attention of N layers, the mean of each one's heads


def force(model: Transformer, params, src: Array, tgt: Array) -> TeacherForced:
    """src [B,S], tgt [B,T], each with EOS and PAD after it; pure, to be jitted.

    The model must be unrolled (`model.transformer.unroll_layers`): a scan keeps no attention apart.
    """
    logits, sown = model.apply({"params": params}, src, shift_right(tgt), mutable=["intermediates"])
    log_probs = jax.nn.log_softmax(logits)
    scores = jnp.take_along_axis(log_probs, tgt[..., None], axis=-1)[..., 0]
    layers = sown["intermediates"]
    weights = [
        layers[f"decoder_{i}"]["cross_attention"]["weights"][0].mean(1)
        for i in range(model.config.decoder_layers)
    ]
    return TeacherForced(jnp.where(tgt == PAD, 0.0, scores), jnp.stack(weights, 1))


@cache
def _forcing(config: TransformerConfig, attention: bool) -> Callable[..., TeacherForced]:
    """`force` of such a model, compiled once; its attention the aligning layer's [B,T,S].

    That is the last layer but one: it aligns best (Garg et al. 2019).
    """
    layer = max(config.decoder_layers - 2, 0)

    def forced(params, src, tgt):
        scores, maps = force(Transformer(config), params, src, tgt)
        return TeacherForced(scores, maps[:, layer] if attention and maps is not None else None)

    return jax.jit(forced)


def teacher_force_pairs(
    model: Transformer,
    params,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    progress: Callable[[int], None] | None = None,
    tokens_per_batch: int = 4096,
    attention: bool = True,
    precompiled_shapes: Sequence[tuple[int, int]] = (),
) -> Iterator[tuple[int, TeacherForced]]:
    """Each pair's number and what `force` finds of it, [T] and [T,S]; not in the pairs' order.

    A pair is a source's and a target's ids, both with EOS, that the model has positions for. Those
    of like length go through the model together, in few shapes, in float32; where one of
    `precompiled_shapes`'s (rows, length) holds them, in these (decode/batching.py).
    `precompile_teacher_forcing` compiles one ahead.
    """
    config, params = unstack_layers(replace(model.config, dtype="float32"), params)
    forced, longest = _forcing(config, attention), config.max_positions
    rooms = []
    for pair in pairs:
        most = max(map(len, pair))
        held = fitting_shape(precompiled_shapes, 1, most)
        room = held[1] if held else max(16, 1 << (most - 1).bit_length())
        rooms.append(min(room, longest or room))
    for room in sorted(set(rooms)):
        members = [i for i, own in enumerate(rooms) if own == room]
        while members:
            rows = max(1, min(tokens_per_batch // room, 1 << (len(members) - 1).bit_length()))
            if held := fitting_shape(precompiled_shapes, len(members), room):
                rows, _ = held
            some, members = members[:rows], members[rows:]
            src, tgt = (pad_rows([pairs[i][side] for i in some], rows, room) for side in (0, 1))
            found = jax.device_get(forced(params, jnp.asarray(src), jnp.asarray(tgt)))
            for row, i in enumerate(some):
                source, target = map(len, pairs[i])
                maps = found.attention[row, :target, :source] if attention else None
                yield i, TeacherForced(found.token_scores[row, :target], maps)
            if progress:
                progress(len(some))


def precompile_teacher_forcing(model: Transformer, params, rows: int, length: int) -> None:
    """Compile what `teacher_force_pairs` runs in this shape of its `precompiled_shapes`."""
    pair = [EOS] * length, [EOS]
    for _ in teacher_force_pairs(model, params, [pair] * rows, precompiled_shapes=[(rows, length)]):
        pass


def score_pairs(
    model: Transformer,
    params,
    vocabulary: Vocabulary,
    sources: Sequence[str],
    targets: Sequence[str],
    progress: Callable[[int], None] | None = None,
    max_tokens: int = 2048,
) -> list[list[float]]:
    """Each target token's log-probability, its EOS last, for every pair of lines, in order.

    Raises InputError for a line of more than `max_tokens` tokens, EOS included, or of more than the
    model has positions for: memory grows with their square.
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
                    f"--{side}, line {number} has {len(ids)} tokens with its end, more than the "
                    f"{longest} that the model has positions for: shorten it"
                )
            if len(ids) > max_tokens:
                raise InputError(
                    f"--{side}, line {number} has {len(ids)} tokens with its end, more than "
                    f"--max_tokens={max_tokens}: shorten it, or raise that"
                )
    found: list[list[float]] = [[] for _ in pairs]
    for i, forced in teacher_force_pairs(model, params, pairs, progress, attention=False):
        found[i] = forced.token_scores.tolist()
    return found


def alignment(attention: np.ndarray) -> list[tuple[int, int]]:
    """The (source, target) positions that attention [T,S] implies.

    Each target token goes with the source position that it attends to most.
    """
    return [(int(row.argmax()), t) for t, row in enumerate(attention)]
