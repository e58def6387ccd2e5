"""FLOPs of training: matrix products of real tokens, the usual basis of utilisation."""

import numpy as np

from model.activations import ACTIVATIONS
from model.config import TransformerConfig


def training_flops(c: TransformerConfig, source: np.ndarray, target: np.ndarray) -> float:
    """FLOPs of one update on pairs of these lengths [n].

    Two per multiplication, and three times the forward pass. Counts matrix products: projections,
    feed-forward, the vocabulary, and the two of attention. A causal mask halves those of decoder
    self-attention; an SSRU has two matrices instead. Padding and recomputation (`model.remat`) are
    not counted.
    """
    width, attend = c.d_model, c.num_heads * (c.key_width + c.value_width)  # of a pair of tokens
    kv = c.kv_heads * (c.key_width + c.value_width)  # less than `attend` for grouped heads
    matrices = 3 if ACTIVATIONS[c.activation].gated else 2
    forward = matrices * width * c.d_ff  # of a token
    query_out, key_value = width * attend, width * kv
    project = query_out + key_value
    encoder = c.encoder_layers * ((project + forward) * source + attend * source**2)
    # Cross-attention's queries and output are the target's, its keys and values the source's.
    self_mixing = project * target + attend * target**2 / 2
    if c.decoder_mixer == "ssru":
        self_mixing = 2 * width**2 * target
    decoder = c.decoder_layers * (
        self_mixing + (query_out + forward) * target + key_value * source + attend * source * target
    )
    return 6.0 * float((encoder + decoder + width * c.target_vocab * target).sum())
