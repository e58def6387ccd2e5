"""Weights that no device holds whole give what whole ones give."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from data.batch import EOS
from model.sharding import make_mesh
from tests.decode.tiny_model import CONFIG, asked, parameters, same, sentences, translator
from tests.train.test_meshes import collectives

pytestmark = pytest.mark.slow

RECURRENT = replace(CONFIG, decoder_mixer="ssru")
RELATIVE = replace(CONFIG, positions="t5_bias", relative_num_buckets=8, relative_max_distance=12)
LEARNED = replace(CONFIG, positions="learned", max_length=64, tying="decoder", embedding_norm=True)


@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize(
    ("mesh", "config", "options"),
    [
        ((1, 8, 1), RELATIVE, {}),
        ((2, 2, 2), LEARNED, dict(coverage=0.2, max_length=40)),
        # Of so many rows a device the last quarter goes on by itself.
        ((1, 2, 1), CONFIG, dict(max_length_offset=20)),
        ((1, 1, 2), RECURRENT, dict(method="sample", num_samples=2, n_best=2)),
    ],
    ids=str,
)
def test_devices_that_share_weights_translate_as_one(vocabulary, mesh, config, options):
    text, params = sentences(21), parameters(config)
    asked = {}
    if "max_length_offset" in options:
        asked = dict(prefixes=["the ", ""] * 10 + ["a "], required=[["rains"], [], ["a"]] * 7)
    alone = translator(params, vocabulary, config, **options).hypotheses(text, **asked)
    assert len({h.tokens for (h, *_) in alone}) > 5  # or the test could not fail
    mesh = make_mesh(*mesh, devices=jax.devices()[: np.prod(mesh)])
    shared = translator(params, vocabulary, config, mesh, **options)
    same(alone, shared.hypotheses(text, **asked))


@pytest.mark.usefixtures("optimised")
def test_a_device_holds_its_part_and_gathers_a_layer_at_a_time(vocabulary):
    config = replace(CONFIG, d_ff=8192, encoder_layers=3, decoder_layers=3)
    mesh = make_mesh(2, 2, 2)
    some = translator(parameters(config), vocabulary, config, mesh)
    sizes = [leaf.size for leaf in jax.tree.leaves(some.weights)]
    for leaf in jax.tree.leaves(some.weights):
        assert {shard.data.size * 4 for shard in leaf.addressable_shards} == {leaf.size}
    lowered = some._search.lower(some.weights, asked(np.full((8, 16), EOS), 16), max_length=16)
    program = lowered.compile()
    found = collectives(program.as_text())
    assert {kind for kind, _ in found} == {"all-gather", "all-to-all", "all-reduce"}
    # The embedding is looked up where its columns are, and of searches only how many go on is told.
    table = config.vocab_size * config.d_model
    gathered = {size for kind, size in found if kind == "all-gather"}
    ids = {4 * each for each in (1, 4, 16)}  # of one beam, at first, of four, of a source
    assert table not in gathered and gathered <= {*sizes} | ids, gathered
    assert {size for kind, size in found if kind == "all-reduce"} == {1}
    # Of the source's rows that were looked up; a layer's keys of four beams are four times as many.
    moved = max(size for kind, size in found if kind == "all-to-all")
    assert moved <= 8 * 16 * config.d_model
    memory, layer = program.memory_analysis(), 2 * config.d_ff * config.d_model * 4
    assert memory.temp_size_in_bytes < 2 * layer < sum(sizes) * 4 / 2
