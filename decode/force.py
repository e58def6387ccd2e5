"""What a model thinks of given outputs: teacher-forced scores, attention, alignment."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from data.batch import EOS, PAD, pad_rows, shift_right
from data.tokenizer import Vocabulary
from model import Transformer
from model.transformer import unroll_layers


class Forced(NamedTuple):
    """Of each target token [B,T], where it is not PAD."""

    token_scores: Array  # [B,T] float32 log-probabilities; 0 at PAD
    attention: Array  # [B,N,T,S] cross-attention of N layers, the mean of each one's heads


def force(model: Transformer, params, src: Array, tgt: Array) -> Forced:
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
    return Forced(jnp.where(tgt == PAD, 0.0, scores), jnp.stack(weights, 1))


def force_pairs(
    model: Transformer,
    params,
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]],
    progress: Callable[[int], None] | None = None,
    tokens_per_batch: int = 4096,
) -> Iterator[tuple[int, Forced]]:
    """Each pair's number and what `force` finds of it, [T] and [N,T,S]; not in the pairs' order.

    A pair is a source's and a target's ids, both with EOS. Those of like length go through the
    model together, in shapes that are powers of two, in float32.
    """
    config, params = unroll_layers(replace(model.config, dtype="float32"), params)
    forced = jax.jit(partial(force, Transformer(config)))
    rooms = [max(16, *(1 << (len(side) - 1).bit_length() for side in pair)) for pair in pairs]
    for room in sorted(set(rooms)):
        members = [i for i, own in enumerate(rooms) if own == room]
        rows = max(1, tokens_per_batch // room)
        for start in range(0, len(members), rows):
            some = members[start : start + rows]
            src, tgt = (pad_rows([pairs[i][side] for i in some], rows, room) for side in (0, 1))
            found = jax.device_get(forced(params, jnp.asarray(src), jnp.asarray(tgt)))
            for row, i in enumerate(some):
                source, target = map(len, pairs[i])
                attention = found.attention[row, :, :target, :source]
                yield i, Forced(found.token_scores[row, :target], attention)
            if progress:
                progress(len(some))


def score_pairs(
    model: Transformer,
    params,
    vocabulary: Vocabulary,
    sources: Sequence[str],
    targets: Sequence[str],
    progress: Callable[[int], None] | None = None,
) -> list[list[float]]:
    """Each target token's log-probability, its EOS last, for every pair of lines, in order."""
    source, target = (
        [[*row, EOS] for row in tokenizer.encode(list(lines))]
        for tokenizer, lines in zip(vocabulary, (sources, targets), strict=True)
    )
    found: list[list[float]] = [[] for _ in source]
    for i, forced in force_pairs(model, params, list(zip(source, target, strict=True)), progress):
        found[i] = forced.token_scores.tolist()
    return found


def alignment(attention: np.ndarray) -> list[tuple[int, int]]:
    """The (source, target) positions that attention [N,T,S] implies, one for each target token.

    Each target token goes with the source position that `aligning_layer` attends to most.
    """
    return [(int(row.argmax()), t) for t, row in enumerate(aligning_layer(attention))]


def aligning_layer(attention: np.ndarray) -> np.ndarray:
    """Of attention [N,T,S] the last layer but one [T,S]: it aligns best (Garg et al. 2019)."""
    return attention[max(len(attention) - 2, 0)]
