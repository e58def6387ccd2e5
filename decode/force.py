"""What a model thinks of given outputs: teacher-forced scores, attention, alignment."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from data.batch import PAD, shift_right
from model import Transformer


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


def alignment(attention: np.ndarray) -> list[tuple[int, int]]:
    """The (source, target) positions that attention [N,T,S] implies, one for each target token.

    Each target token goes with the source position that the last layer but one attends to most:
    of a trained model's layers the one that aligns best (Garg et al. 2019).
    """
    layer = attention[max(len(attention) - 2, 0)]
    return [(int(row.argmax()), t) for t, row in enumerate(layer)]
