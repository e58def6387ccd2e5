"""A small random translation model, and a comparison of translations."""

from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from decode.options import SearchOptions
from decode.search_batch import SearchBatch
from decode.translate import Translator
from model import Transformer, TransformerConfig

WORDS = "the teacher reads a book and the student asks why it rains on a green monday".split()
CONFIG = TransformerConfig(
    encoder_layers=1, decoder_layers=2, d_model=16, d_ff=32, num_heads=2, vocab_size=300
)


@cache
def _initial_parameters(config):
    # Not jitted: the small programs of single operations serve several models.
    shape = jnp.ones((1, 2), jnp.int32)
    return nn.unbox(Transformer(config).init(jax.random.key(1), shape, shape))["params"]


def parameters(config, scale=4.0):
    """Random parameters, large enough that outputs differ and end."""
    return jax.tree.map(lambda p: p * scale, _initial_parameters(config))


def sentences(count, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(count)]


def translator(params, vocabulary, config=CONFIG, mesh=None, ensemble=(), **options):
    batching = {n: options.pop(n) for n in ("tokens_per_batch", "long_input") if n in options}
    # One cache stage by default: each stage compiles another loop.
    options = SearchOptions(**{"max_length_offset": 6, "max_length": 16} | options)
    model = Transformer(config)
    return Translator(model, params, vocabulary, mesh, options, ensemble=ensemble, **batching)


def search_batch(src, limits):
    """Search batch of sources [B,S] without constraints."""
    rows = len(src)
    return SearchBatch(
        jnp.asarray(src, jnp.int32),
        jnp.broadcast_to(jnp.asarray(limits, jnp.int32), rows),
        jnp.zeros((rows, 0), jnp.int32),
        jnp.zeros((rows, 0, 0), jnp.int32),
        jnp.arange(rows, dtype=jnp.uint32),
        jnp.zeros((rows, 2), jnp.int32),
    )


def best(n_best):
    return [first for first, *_ in n_best]


def assert_same(left, right):
    left, right = ([h for hs in lists for h in hs] for lists in (left, right))
    assert [h.text for h in left] == [h.text for h in right]
    assert [h.tokens for h in left] == [h.tokens for h in right]
    scores = [[h.score for h in lists] for lists in (left, right)]
    np.testing.assert_allclose(*scores, rtol=5e-5, atol=1e-4)
