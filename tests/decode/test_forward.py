"""Decoding weights, KV cache and step compared with the training model, for every variant."""

from dataclasses import replace
from functools import cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.batch import EOS, PAD, UNK
from decode import forward, kv_cache, topk
from decode.families import make_generator
from decode.loop import gather_beams
from decode.search import cache_stages, make_step, reference_step
from decode.token_constraints import RULES, TokenConstraints
from decode.weights import BLOCK, PRECISIONS, pack
from model import Transformer, TransformerConfig, init_cache

PLAIN = TransformerConfig(
    vocab_size=150, encoder_layers=2, decoder_layers=2, d_model=16, d_ff=24, num_heads=4
)
VARIANTS = {
    "paper": {},
    "pre": {"norm": "pre", "norm_kind": "rms", "mlp_bias": False, "activation": "silu"},
    "rotary": {"positions": "rotary", "num_kv_heads": 2, "activation": "swiglu", "norm": "pre"},
    "relative": {"positions": "t5_bias", "relative_num_buckets": 8, "relative_max_distance": 12}
    | {"num_kv_heads": 2, "activation": "geglu_tanh", "norm": "pre", "norm_kind": "rms"},
    "learned": {"positions": "learned", "max_length": 30, "attention_bias": True, "tying": "none"}
    | {"embedding_norm": True},
    "halves": {"positions": "sinusoidal_concat", "activation": "gelu", "tying": "decoder"}
    | {"position_offset": 2},
    "widths": {"d_k": 6, "d_v": 10, "num_kv_heads": 1, "attention_bias": True},
    "uneven": {"vocab_size": 256, "target_vocab_size": 131, "tying": "none", "activation": "geglu"},
    "biased": {"output_bias": True, "scale_embedding": False},
    "untied": {"output_bias": True, "scale_embedding": False, "tying": "none"},
    "scanned": {"scan_layers": True, "activation": "reglu"},
    "recurrent": {"decoder_mixer": "ssru", "positions": "sinusoidal_tensor2tensor"},
    "bfloat16": {"dtype": "bfloat16"},  # trained in bfloat16; decoded in float32
}
B, W, L = 3, 4, 20


def random_params(config):
    ids = jnp.ones((1, 2), jnp.int32)
    params = nn.unbox(Transformer(config).init(jax.random.key(1), ids, ids))["params"]
    noise = lambda p: p + 0.05 * jax.random.normal(jax.random.key(p.size), p.shape)  # noqa: E731
    return jax.tree.map(noise, params)


def search_step(config, weights, src, coverage=False, rules=RULES):
    """Makes the decoding step for `src`."""
    mask = src != PAD
    cross = jax.jit(lambda w: forward.cross_kv(config, w, forward.encode(config, w, src, mask)))(
        weights
    )
    return jax.jit(make_step(make_generator(config), weights, (cross, mask), coverage, rules))


def random_walk(config, weights, src, steps=L, coverage=False, rules=RULES):
    """Log probabilities [steps,B,W,V] along random tokens and beam reorderings."""
    step = search_step(config, weights, src, coverage, rules)
    cache = (
        kv_cache.init_beam_cache(config, B, W),
        jnp.zeros((B, W, src.shape[1])) if coverage else None,
    )
    return run_random_walk(
        step, cache, steps, lambda c, rows: (kv_cache.reorder(c[0], rows), c[1]),
        lambda c, length: (kv_cache.extend(c[0], config, length, W), c[1]),
    )  # fmt: skip


def run_random_walk(step, cache, steps, reorder, extend):
    random, log_probs = np.random.default_rng(0), []
    ends = iter(cache_stages(steps))
    capacity = 0
    for index in range(steps):
        if index == capacity:
            capacity = next(ends)
            cache = extend(cache, capacity)
        tokens = jnp.asarray(random.integers(4, 100, (B, W)), jnp.int32)
        next_token, cache = step(tokens, cache, jnp.int32(index))
        log_probs.append(np.asarray(next_token.logits - next_token.log_normalizer[..., None]))
        cache = reorder(cache, jnp.asarray(random.integers(0, W, (B, W)), jnp.int32))
    return np.stack(log_probs), cache


@cache
def free_walk(steps=5, config=PLAIN):
    """Log probabilities of a random walk without rules, which several tests compare with."""
    return random_walk(config, pack(config, random_params(config)), sources(), steps)[0]


def sources():
    src = np.random.default_rng(1).integers(4, 100, (B, 7)).astype(np.int32)
    src[0, 4:], src[1, 2:] = PAD, PAD
    src[:, 0] = EOS
    return jnp.asarray(src)


def reference_walk(config, params, src):
    """The same random walk with the training model's cached steps."""
    model = Transformer(replace(config, dtype="float32"))
    apply = jax.jit(model.apply, static_argnames="method")
    memory = apply({"params": params}, src, method="encode")
    cross = apply({"params": params}, memory, method="cross_kv")
    expected, _ = run_random_walk(
        jax.jit(reference_step(model, params, cross, src != PAD)),
        init_cache(model.config, (B, W), L),
        L,
        lambda cache, rows: jax.tree.map(lambda leaf: gather_beams(leaf, rows), cache),
        lambda cache, length: cache,
    )
    return expected


@pytest.mark.parametrize("name", VARIANTS)
def test_a_decoding_step_equals_the_training_model(name):
    config = replace(PLAIN, **VARIANTS[name])
    params, src = random_params(config), sources()
    log_probs, _ = random_walk(config, pack(config, params), src)
    vocab = config.target_vocab
    expected = reference_walk(config, params, src)
    np.testing.assert_allclose(log_probs[..., :vocab], expected, atol=5e-5, rtol=0)
    assert log_probs.shape[-1] % BLOCK == 0 and np.isneginf(log_probs[..., vocab:]).all()


@pytest.mark.parametrize("mixer", ["attention", "ssru"])
def test_a_single_beam_cache_equals_a_cache_of_equal_beams(mixer):
    """A search whose first step has one beam equals one with W equal beams."""
    config = replace(PLAIN, decoder_mixer=mixer)
    src, weights = sources(), pack(config, random_params(config))
    step = search_step(config, weights, src, coverage=True)
    tokens = np.random.default_rng(2).integers(4, 100, (3, B, W)).astype(np.int32)
    tokens[0] = tokens[0, :, :1]
    outputs = []
    for beams in (W, 1):
        coverage = jnp.zeros((B, beams, src.shape[1]))
        cache = kv_cache.extend(kv_cache.init_beam_cache(config, B, beams), config, 3, W), coverage
        for index in range(3):
            next_token, cache = step(jnp.asarray(tokens[index]), cache, jnp.int32(index))
            cache = kv_cache.reorder(cache[0], jnp.asarray([[3, 0, 0, 1]] * B)), cache[1]
            outputs.append((next_token, cache[1]))
    for full, single in zip(outputs[:3], outputs[3:], strict=True):
        jax.tree.map(lambda *x: np.testing.assert_allclose(*x, atol=1e-5), full, single)


def test_coverage_is_the_sum_of_cross_attention():
    config, src = PLAIN, sources()
    _, (_, coverage) = random_walk(
        config, pack(config, random_params(config)), src, steps=5, coverage=True
    )
    masked = np.where(src[:, None] == PAD, 0.0, coverage)
    np.testing.assert_allclose(masked.sum(-1), 5.0, rtol=1e-5)
    np.testing.assert_allclose(coverage, masked, atol=1e-6)


def test_min_length_hides_only_eos():
    weights, src = pack(PLAIN, random_params(PLAIN)), sources()
    free = free_walk().copy()
    constrained, _ = random_walk(PLAIN, weights, src, steps=5, rules=TokenConstraints(min_length=3))
    hidden = np.isneginf(constrained[..., EOS])
    assert hidden[:2].all() and not hidden[2:].any()
    free[:2, ..., EOS] = -np.inf
    np.testing.assert_allclose(constrained, free, atol=1e-5)


def test_unknown_tokens_and_renormalization():
    """UNK is finite only if allowed; `renormalize` makes allowed probabilities sum to 1."""
    weights, src = pack(PLAIN, random_params(PLAIN)), sources()
    free = free_walk()[:3]
    unknown, _ = random_walk(
        PLAIN, weights, src, steps=3, rules=TokenConstraints(allow_unknown=True)
    )
    assert np.isneginf(free[..., UNK]).all() and np.isfinite(unknown[..., UNK]).all()
    np.testing.assert_allclose(np.delete(unknown, UNK, -1), np.delete(free, UNK, -1), atol=1e-5)
    renormalized, _ = random_walk(
        PLAIN, weights, src, steps=3, rules=TokenConstraints(3, True, True)
    )
    total = np.exp(renormalized.astype(float)).sum(-1)
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)
    assert (
        np.isneginf(renormalized[:2, ..., EOS]).all()
        and np.isfinite(renormalized[2, ..., EOS]).all()
    )


def test_forced_bos_has_probability_one_and_changes_no_later_step():
    weights, src = pack(PLAIN, random_params(PLAIN)), sources()
    free = free_walk()[:4]
    forced, _ = random_walk(PLAIN, weights, src, steps=4, rules=TokenConstraints(forced_bos_id=9))
    assert (forced[0, ..., 9] == 0).all() and np.isneginf(np.delete(forced[0], 9, -1)).all()
    np.testing.assert_allclose(forced[1:], free[1:], atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_lower_precisions_are_close_to_float32(precision):
    config, src = replace(PLAIN, d_model=64, d_ff=128), sources()
    params = random_params(config)
    exact = free_walk(8, config)
    quantized, _ = random_walk(config, pack(config, params, precision), src, steps=8)
    finite = np.isfinite(exact)
    error = np.abs(quantized[finite] - exact[finite]).max()
    assert error < {"float32": 1e-6, "bfloat16": 0.2, "int8": 0.4}[precision]
    assert (error > 1e-3) == (precision != "float32")


@pytest.mark.parametrize("vocab", [5, BLOCK, 20 * BLOCK, 20 * BLOCK + 1])
@pytest.mark.parametrize("values", [3, 10_000])
def test_blockwise_top_k_equals_top_k(vocab, values):
    """Few distinct values give many ties, many values give few."""
    rng = np.random.default_rng(vocab)
    x = jnp.asarray(rng.integers(0, values, (2, 3, vocab)), jnp.float32)
    x = jnp.where(jnp.asarray(rng.random(x.shape) < 0.3), -jnp.inf, x)
    for count in (1, 4, min(8, vocab)):
        count = min(count, vocab)
        for actual, expected in zip(
            topk.blockwise_top_k(x, count), jax.lax.top_k(x, count), strict=True
        ):
            np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(topk.blockwise_argmax(x), jnp.argmax(x, -1))
    np.testing.assert_array_equal(topk.blockwise_max(x), x.max(-1))
