"""Sharded decoding weights give the same translations as unsharded ones."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from data.batch import EOS
from model.sharding import make_mesh
from tests.decode.tiny_model import (
    CONFIG,
    assert_same,
    parameters,
    search_batch,
    sentences,
    translator,
)
from tests.train.test_meshes import collectives

pytestmark = pytest.mark.slow

WIDE = replace(CONFIG, d_ff=8192, encoder_layers=3, decoder_layers=3)
RECURRENT = replace(CONFIG, decoder_layers=1, decoder_mixer="ssru")
RELATIVE = replace(CONFIG, positions="t5_bias", relative_num_buckets=8, relative_max_distance=12)
ONE_LAYER = replace(CONFIG, decoder_layers=1)
LEARNED = replace(CONFIG, positions="learned", max_length=64, tying="decoder", embedding_norm=True)


@pytest.fixture(scope="module")
def params_of():
    """Parameters of every model, made before a test's XLA optimizations apply."""
    return {
        config: parameters(config) for config in (RELATIVE, LEARNED, ONE_LAYER, RECURRENT, WIDE)
    }


@pytest.mark.usefixtures("optimized")
@pytest.mark.parametrize(
    ("mesh", "config", "options"),
    [
        ((1, 8, 1), RELATIVE, {}),
        ((2, 2, 2), LEARNED, dict(coverage=0.2, max_length=20)),
        # Enough rows per device that the last quarter is compacted.
        ((1, 2, 1), ONE_LAYER, dict(max_length_offset=20)),
        ((1, 1, 2), RECURRENT, dict(method="sample", num_samples=2, n_best=2)),
    ],
    ids=str,
)
def test_sharded_weights_translate_like_unsharded_weights(
    params_of, vocabulary, mesh, config, options
):
    text, params = sentences(21), params_of[config]
    constraints = {}
    if "max_length_offset" in options:
        constraints = dict(prefixes=["the ", ""] * 10 + ["a "], required=[["rains"], [], ["a"]] * 7)
    expected = translator(params, vocabulary, config, **options).hypotheses(text, **constraints)
    assert len({h.tokens for (h, *_) in expected}) > 5  # guards against a vacuous test
    mesh = make_mesh(*mesh, devices=jax.devices()[: np.prod(mesh)])
    sharded = translator(params, vocabulary, config, mesh, **options)
    assert_same(expected, sharded.hypotheses(text, **constraints))


@pytest.mark.usefixtures("optimized")
def test_a_device_stores_its_shard_and_gathers_one_layer_at_a_time(params_of, vocabulary):
    config, mesh = WIDE, make_mesh(2, 2, 2)
    sharded = translator(params_of[config], vocabulary, config, mesh)
    sizes = [leaf.size for leaf in jax.tree.leaves(sharded.weights)]
    for leaf in jax.tree.leaves(sharded.weights):
        assert {shard.data.size * 4 for shard in leaf.addressable_shards} == {leaf.size}
    lowered = sharded._search.lower(
        sharded.weights, search_batch(np.full((8, 16), EOS), 16), max_length=16
    )
    program = lowered.compile()
    ops = collectives(program.as_text())
    assert {kind for kind, _ in ops} == {"all-gather", "all-to-all", "all-reduce"}
    # Embedding lookups stay on their shard; only the number of active searches is all-reduced.
    table = config.vocab_size * config.d_model
    gathered = {size for kind, size in ops if kind == "all-gather"}
    # The ids of one beam in the first step, of four beams, and of a source.
    ids = {4 * count for count in (1, 4, 16)}
    assert table not in gathered and gathered <= {*sizes} | ids, gathered
    assert {size for kind, size in ops if kind == "all-reduce"} == {1}
    # The looked-up source rows; a layer's keys of four beams are four times larger.
    max_moved = max(size for kind, size in ops if kind == "all-to-all")
    assert max_moved <= 8 * 16 * config.d_model
    memory, layer = program.memory_analysis(), 2 * config.d_ff * config.d_model * 4
    assert memory.temp_size_in_bytes < 2 * layer < sum(sizes) * 4 / 2
