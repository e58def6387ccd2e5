"""What a model thinks of given outputs: teacher-forced scores, attention, alignment."""

from collections.abc import Callable, Sequence
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


def score_pairs(
    model: Transformer,
    params,
    vocabulary: Vocabulary,
    sources: Sequence[str],
    targets: Sequence[str],
    progress: Callable[[int], None] | None = None,
    tokens_per_batch: int = 4096,
) -> list[list[float]]:
    """Each target token's log-probability, its EOS last, for every pair of lines, in order.

    Pairs of like length go through the model together, in shapes that are powers of two.
    """
    config, params = unroll_layers(replace(model.config, dtype="float32"), params)
    forced = jax.jit(partial(force, Transformer(config)))
    ids = [
        [[*row, EOS] for row in tokenizer.encode(list(lines))]
        for tokenizer, lines in zip(vocabulary, (sources, targets), strict=True)
    ]
    rooms = [max(16, *(1 << (len(side[i]) - 1).bit_length() for side in ids))
             for i in range(len(sources))]  # fmt: skip
    found: list[list[float]] = [[] for _ in sources]
    for room in sorted(set(rooms)):
        members = [i for i, own in enumerate(rooms) if own == room]
        rows = max(1, tokens_per_batch // room)
        for start in range(0, len(members), rows):
            some = members[start : start + rows]
            src, tgt = (pad_rows([side[i] for i in some], rows, room) for side in ids)
            scores = np.asarray(forced(params, jnp.asarray(src), jnp.asarray(tgt)).token_scores)
            for row, i in zip(scores, some, strict=False):
                found[i] = row[: len(ids[1][i])].tolist()
            if progress:
                progress(len(some))
    return found


def alignment(attention: np.ndarray) -> list[tuple[int, int]]:
    """The (source, target) positions that attention [N,T,S] implies, one for each target token.

    Each target token goes with the source position that the last layer but one attends to most:
    of a trained model's layers the one that aligns best (Garg et al. 2019).
    """
    layer = attention[max(len(attention) - 2, 0)]
    return [(int(row.argmax()), t) for t, row in enumerate(layer)]
