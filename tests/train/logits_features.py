"""Features with given logits, for models without layers."""

import jax.numpy as jnp

from data.batch import PAD
from model.family import Features


def features_of(logits, batch):
    """Features [B,T,V] from which the loss computes these logits."""
    weights = (jnp.asarray(batch.tgt) != PAD).astype(jnp.float32)
    return Features(logits, jnp.eye(logits.shape[-1]), None, jnp.asarray(batch.tgt), weights)
