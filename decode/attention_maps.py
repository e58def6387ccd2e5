"""Attention maps: the weights of every head in a teacher-forced pass."""

import numpy as np
from jax import Array

from model import Transformer
from model.transformer import unstack_layers


def attention_maps(model: Transformer, params, src: Array, tgt_in: Array) -> dict[str, np.ndarray]:
    """src [1,S], tgt_in [1,T] -> encoder [N,H,S,S], decoder [N,H,T,T] and cross [N,H,T,S].

    A decoder with a recurrence in place of self-attention has no decoder maps.
    """
    config, params = unstack_layers(model.config, params)
    _, collections = Transformer(config).apply(
        {"params": params}, src, tgt_in, mutable=["intermediates"]
    )
    layers = collections["intermediates"]

    def maps(stack: str, count: int, module: str) -> np.ndarray:
        weights = (layers[f"{stack}_{i}"][module]["weights"][0][0] for i in range(count))
        return np.stack([np.asarray(w) for w in weights])

    sources = {"encoder": ("encoder", config.encoder_layers, "attention")}
    if config.recurrence is None:
        sources["decoder"] = ("decoder", config.decoder_layers, "self_attention")
    sources["cross"] = ("decoder", config.decoder_layers, "cross_attention")
    return {name: maps(*source) for name, source in sources.items()}
