"""Dropout (Srivastava et al. 2014) with 16 random bits per entry.

Flax's takes 32, and on a CPU drawing them costs more than all else about it. Sixteen give the
rate to 1 in 65,536.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array


class Dropout(nn.Module):
    """Zero each entry with probability `rate` and scale the others up, when training."""

    rate: float
    bits: int = 16  # of each entry's draw; 32: as Flax draws

    def __call__(self, x: Array, *, train: bool) -> Array:
        """x of any shape -> the same shape; the mask is a function of the 'dropout' key."""
        if not train or self.rate == 0:
            return x
        key = self.make_rng("dropout")
        if self.bits == 32:
            kept = jax.random.bernoulli(key, 1 - self.rate, x.shape)
        else:
            kept = keep_mask(key, self.rate, x.shape)
        return jnp.where(kept, x / (1 - self.rate), jnp.zeros_like(x))


def keep_mask(key: Array, rate: float, shape: tuple[int, ...]) -> Array:
    """True with probability 1 - rate, independently for every entry of `shape`."""
    *rows, width = shape
    words = jax.random.bits(key, (*rows, -(-width // 2)), jnp.uint32)
    least = jnp.uint32(min(round(rate * 65536), 65535) << 16)
    # A word's halves go far apart, not side by side: a compiler can then take many words at once.
    return jnp.concatenate([words >= least, words << 16 >= least], axis=-1)[..., :width]
