"""What search does differently on TPUs and GPUs, executed on the CPU."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.batch import UNK
from decode import kv_block, token_constraints, topk
from decode.families import make_generator
from decode.kv_block import FlatKVBlock, KVBlock, matmul
from decode.options import SearchOptions
from decode.search import search
from decode.token_constraints import RULES, next_token
from decode.weights import BLOCK, PRECISIONS, pack
from tests.decode.test_forward import (
    PLAIN,
    VARIANTS,
    random_params,
    random_walk,
    reference_walk,
    sources,
)
from tests.decode.tiny_model import search_batch


@pytest.fixture
def accelerator(monkeypatch):
    """Programs are traced as for a TPU, except that the platform's own kernels are the CPU's."""
    for module in kv_block, topk, token_constraints:
        monkeypatch.setattr(module, "current_platform", lambda: "tpu")


@pytest.mark.parametrize("name", ["paper", "rotary", "widths", "recurrent"])
def test_a_decoding_step_for_tpus_equals_the_training_model(name, accelerator):
    config = replace(PLAIN, **VARIANTS[name])
    params, src = random_params(config), sources()
    log_probs, _ = random_walk(config, pack(config, params), src)
    expected = reference_walk(config, params, src)
    np.testing.assert_allclose(log_probs[..., : config.target_vocab], expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_cache_for_tpus_has_the_dtype_of_the_products(precision, accelerator):
    family = make_generator(PLAIN)
    weights = family.pack(random_params(PLAIN), precision)
    cache = family.extend(weights, family.init_cache(2), 16, 4)
    (block,) = family.extend(weights, cache, 32, 4).layers[0]
    assert isinstance(block, FlatKVBlock) and block.size == 32 * 4
    assert block.k.dtype == ("float32" if precision == "float32" else "bfloat16")


@pytest.mark.parametrize(
    "options", [SearchOptions(beam_size=3), SearchOptions(method="sample", num_samples=2, n_best=2)]
)
def test_a_search_for_tpus_gives_the_same_outputs(options, request):
    """Several stages of the cache, and a tail of unfinished sentences."""
    params, src = random_params(PLAIN), jnp.tile(sources(), (3, 1))
    family = make_generator(PLAIN)
    rows = jnp.arange(len(src), dtype=jnp.int32)
    batch = search_batch(src, 3 + 4 * rows)

    def hypotheses():
        find = jax.jit(lambda w: search((family,), (w,), batch, options=options, max_length=36))
        return find(family.pack(params, "float32"))

    expected = hypotheses()
    request.getfixturevalue("accelerator")
    actual = hypotheses()
    np.testing.assert_array_equal(actual.tokens, expected.tokens)
    np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-4)


@pytest.mark.parametrize("heads", [1, 3])
def test_layouts_of_a_block_give_the_same_results(heads):
    random = np.random.default_rng(0)
    array = lambda *shape: jnp.asarray(random.standard_normal(shape), jnp.float32)  # noqa: E731
    rows, queries, size, key, value = 2, 4, 6, 5, 7
    k, v = array(rows, size, heads, key), array(rows, size, heads, value)
    q, weights = array(rows, heads, queries, key), array(rows, heads, queries, size)
    config = SimpleNamespace(kv_heads=heads, key_width=key, value_width=value)
    results = []
    for kind in KVBlock, FlatKVBlock:
        block = kind.empty(config, rows, size, jnp.float32)
        for start, stop in (0, 4), (4, 6):
            entry = kind.from_heads(k[:, start:stop], v[:, start:stop])
            block = block.write(entry, jnp.int32(start))
        longer = kind.concatenate((block, kind.from_heads(k, v)))
        assert block.size == size and longer.size == 2 * size and block.num_heads(key) == heads
        results.append(
            (block.scores(q, matmul), block.mix(weights, matmul), longer.scores(q, matmul))
        )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), *results)


@pytest.mark.parametrize("values", [3, 10_000])
def test_top_k_of_other_platforms_equals_that_of_the_cpu(values, monkeypatch):
    random = np.random.default_rng(values)
    x = jnp.asarray(random.integers(0, values, (2, 3, 20 * BLOCK)), jnp.float32)
    functions = lambda x: topk.blockwise_top_k(x, 7), topk.blockwise_max, topk.blockwise_argmax  # noqa: E731
    expected = [function(x) for function in functions]
    monkeypatch.setattr(topk, "current_platform", lambda: "gpu")
    for function, result in zip(functions, expected, strict=True):
        jax.tree.map(np.testing.assert_array_equal, function(x), result)


def test_masked_logits_of_other_platforms_equal_those_of_the_cpu(monkeypatch):
    random = np.random.default_rng(0)
    logits = jnp.asarray(random.standard_normal((2, 3, BLOCK)), jnp.float32)
    special = jnp.asarray(random.standard_normal((2, 3, UNK + 1)), jnp.float32)
    expected = next_token(logits, special, BLOCK - 5, jnp.int32(2), RULES)
    monkeypatch.setattr(token_constraints, "current_platform", lambda: "gpu")
    actual = next_token(logits, special, BLOCK - 5, jnp.int32(2), RULES)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)
