"""Decoding's own weights, pool and step against the model that trains, for every switch."""

from dataclasses import replace

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
    "pre": {"norm": "pre", "norm_kind": "rms", "ff_bias": False, "activation": "silu"},
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
    "bfloat16": {"dtype": "bfloat16"},  # trained so; decoding is in float32 all the same
}
B, W, L = 3, 4, 20


def made(config):
    ids = jnp.ones((1, 2), jnp.int32)
    params = nn.unbox(Transformer(config).init(jax.random.key(1), ids, ids))["params"]
    noise = lambda p: p + 0.05 * jax.random.normal(jax.random.key(p.size), p.shape)  # noqa: E731
    return jax.tree.map(noise, params)


def started(config, weights, src, coverage=False, rules=RULES):
    """The step of a search for these sources."""
    mask = src != PAD
    cross = jax.jit(lambda w: forward.cross_kv(config, w, forward.encode(config, w, src, mask)))(
        weights
    )
    return jax.jit(make_step(make_generator(config), weights, (cross, mask), coverage, rules))


def walk(config, weights, src, steps=L, coverage=False, rules=RULES):
    """Log-probabilities [steps,B,W,V] as beams wander at random through the pool's stages."""
    step = started(config, weights, src, coverage, rules)
    cache = (
        kv_cache.init_beam_cache(config, B, W),
        jnp.zeros((B, W, src.shape[1])) if coverage else None,
    )
    return wander(
        step, cache, steps, lambda c, rows: (kv_cache.reorder(c[0], rows), c[1]),
        lambda c, length: (kv_cache.extend(c[0], config, length, W), c[1]),
    )  # fmt: skip


def wander(step, cache, steps, reorder, extend):
    random, found = np.random.default_rng(0), []
    ends = iter(cache_stages(steps))
    room = 0
    for index in range(steps):
        if index == room:
            room = next(ends)
            cache = extend(cache, room)
        tokens = jnp.asarray(random.integers(4, 100, (B, W)), jnp.int32)
        next_token, cache = step(tokens, cache, jnp.int32(index))
        found.append(np.asarray(next_token.logits - next_token.log_normalizer[..., None]))
        cache = reorder(cache, jnp.asarray(random.integers(0, W, (B, W)), jnp.int32))
    return np.stack(found), cache


def sources():
    src = np.random.default_rng(1).integers(4, 100, (B, 7)).astype(np.int32)
    src[0, 4:], src[1, 2:] = PAD, PAD
    src[:, 0] = EOS
    return jnp.asarray(src)


def plain_walk(config, params, src):
    """The same walk by the model that trains: one cached step of it after the other."""
    model = Transformer(replace(config, dtype="float32"))
    apply = jax.jit(model.apply, static_argnames="method")
    memory = apply({"params": params}, src, method="encode")
    cross = apply({"params": params}, memory, method="cross_kv")
    expected, _ = wander(
        jax.jit(reference_step(model, params, cross, src != PAD)),
        init_cache(model.config, (B, W), L),
        L,
        lambda cache, rows: jax.tree.map(lambda leaf: gather_beams(leaf, rows), cache),
        lambda cache, length: cache,
    )
    return expected


@pytest.mark.parametrize("name", VARIANTS)
def test_a_step_over_the_pool_is_the_models_own(name):
    config = replace(PLAIN, **VARIANTS[name])
    params, src = made(config), sources()
    found, _ = walk(config, pack(config, params), src)
    vocab = config.target_vocab
    expected = plain_walk(config, params, src)
    np.testing.assert_allclose(found[..., :vocab], expected, atol=5e-5, rtol=0)
    assert found.shape[-1] % BLOCK == 0 and np.isneginf(found[..., vocab:]).all()


@pytest.mark.parametrize("mixer", ["attention", "ssru"])
def test_a_cache_of_one_beam_stands_for_equal_beams(mixer):
    """The first step of a search: what it finds and keeps is as if every beam had been there."""
    config = replace(PLAIN, decoder_mixer=mixer)
    src, weights = sources(), pack(config, made(config))
    step = started(config, weights, src, coverage=True)
    tokens = np.random.default_rng(2).integers(4, 100, (3, B, W)).astype(np.int32)
    tokens[0] = tokens[0, :, :1]
    found = []
    for beams in (W, 1):
        covered = jnp.zeros((B, beams, src.shape[1]))
        cache = kv_cache.extend(kv_cache.init_beam_cache(config, B, beams), config, 3, W), covered
        for index in range(3):
            next_token, cache = step(jnp.asarray(tokens[index]), cache, jnp.int32(index))
            cache = kv_cache.reorder(cache[0], jnp.asarray([[3, 0, 0, 1]] * B)), cache[1]
            found.append((next_token, cache[1]))
    for all_there, one in zip(found[:3], found[3:], strict=True):
        jax.tree.map(lambda *x: np.testing.assert_allclose(*x, atol=1e-5), all_there, one)


def test_coverage_is_the_cross_attention_that_was_received():
    config, src = PLAIN, sources()
    _, (_, covered) = walk(config, pack(config, made(config)), src, steps=5, coverage=True)
    received = np.where(src[:, None] == PAD, 0.0, covered)
    np.testing.assert_allclose(received.sum(-1), 5.0, rtol=1e-5)
    np.testing.assert_allclose(covered, received, atol=1e-6)


def test_eos_is_hidden_before_the_minimum_length_and_nothing_else_changes():
    weights, src = pack(PLAIN, made(PLAIN)), sources()
    free, _ = walk(PLAIN, weights, src, steps=5)
    held, _ = walk(PLAIN, weights, src, steps=5, rules=TokenConstraints(min_length=3))
    hidden = np.isneginf(held[..., EOS])
    assert hidden[:2].all() and not hidden[2:].any()
    free[:2, ..., EOS] = -np.inf
    np.testing.assert_allclose(held, free, atol=1e-5)


def test_what_may_be_chosen_and_of_what_log_probabilities_are():
    """The unknown word where it is allowed; a sum of 1 where it is among what may be chosen."""
    weights, src = pack(PLAIN, made(PLAIN)), sources()
    free, _ = walk(PLAIN, weights, src, steps=3)
    unknown, _ = walk(PLAIN, weights, src, steps=3, rules=TokenConstraints(allow_unknown=True))
    assert np.isneginf(free[..., UNK]).all() and np.isfinite(unknown[..., UNK]).all()
    np.testing.assert_allclose(np.delete(unknown, UNK, -1), np.delete(free, UNK, -1), atol=1e-5)
    both, _ = walk(PLAIN, weights, src, steps=3, rules=TokenConstraints(3, True, True))
    total = np.exp(both.astype(float)).sum(-1)
    np.testing.assert_allclose(total, 1.0, rtol=1e-5)
    assert np.isneginf(both[:2, ..., EOS]).all() and np.isfinite(both[2, ..., EOS]).all()


def test_a_first_id_is_certain_and_nothing_after_it_changes():
    weights, src = pack(PLAIN, made(PLAIN)), sources()
    free, _ = walk(PLAIN, weights, src, steps=4)
    begun, _ = walk(PLAIN, weights, src, steps=4, rules=TokenConstraints(forced_bos_id=9))
    assert (begun[0, ..., 9] == 0).all() and np.isneginf(np.delete(begun[0], 9, -1)).all()
    np.testing.assert_allclose(begun[1:], free[1:], atol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_lower_precisions_are_near(precision):
    config, src = replace(PLAIN, d_model=64, d_ff=128), sources()
    params = made(config)
    exact, _ = walk(config, pack(config, params), src, steps=8)
    near, _ = walk(config, pack(config, params, precision), src, steps=8)
    finite = np.isfinite(exact)
    error = np.abs(near[finite] - exact[finite]).max()
    assert error < {"float32": 1e-6, "bfloat16": 0.2, "int8": 0.4}[precision]
    assert (error > 1e-3) == (precision != "float32")


@pytest.mark.parametrize("vocab", [5, BLOCK, 20 * BLOCK, 20 * BLOCK + 1])
@pytest.mark.parametrize("values", [3, 10_000])
def test_the_best_by_blocks_are_the_best(vocab, values):
    """Few values, so many ties; and many, so few."""
    rng = np.random.default_rng(vocab)
    x = jnp.asarray(rng.integers(0, values, (2, 3, vocab)), jnp.float32)
    x = jnp.where(jnp.asarray(rng.random(x.shape) < 0.3), -jnp.inf, x)
    for count in (1, 4, min(8, vocab)):
        count = min(count, vocab)
        for found, expected in zip(
            topk.blockwise_top_k(x, count), jax.lax.top_k(x, count), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(topk.blockwise_argmax(x), jnp.argmax(x, -1))
    np.testing.assert_array_equal(topk.blockwise_max(x), x.max(-1))
