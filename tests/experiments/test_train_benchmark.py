"""The training benchmark's own machinery, on a model small enough for a test."""

import math
from dataclasses import replace

import jax
import numpy as np
import pytest
from absl.testing import flagsaver
from jax.extend.core import jaxprs_in_params

from benchmarks import train_heed, train_loop
from benchmarks.train_workloads import Workload, flops, workload
from data.pipeline import Ragged, TokenPairs
from experiments.setup import set_up
from model import Transformer, TransformerConfig
from tests.experiments.commands import SMALL, small_experiment

pytestmark = pytest.mark.slow

TINY = TransformerConfig(
    vocab_size=40, encoder_layers=2, decoder_layers=3, d_model=8, d_ff=12, num_heads=2, dropout=0.0
)


def products(jaxpr):
    """Floating-point operations of all matrix products in a program."""
    total = 0
    for equation in jaxpr.eqns:
        for inner in jaxprs_in_params(equation.params):
            total += products(inner)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)
    return total


RECURRENT = replace(TINY, decoder_mixer="ssru")


@pytest.mark.parametrize("config", [TINY, replace(TINY, d_k=6), RECURRENT], ids=["", "d_k", "ssru"])
def test_counted_are_the_products_of_the_program(config):
    source, target = 5, 7
    model, src, tgt = (
        Transformer(config),
        np.ones((1, source), np.int32),
        np.ones((1, target), np.int32),
    )
    params = jax.eval_shape(model.init, jax.random.key(0), src, tgt)
    program = jax.make_jaxpr(model.apply)(params, src, tgt)
    # The program mixes all of the decoder's own values, the formula half of them.
    mixed = config.num_heads * (config.key_width + config.value_width) * target**2
    masked = mixed * config.decoder_layers * (config.decoder_mixer == "attention")
    counted = flops(config, np.array([source]), np.array([target])) / 3
    assert counted + masked == products(program.jaxpr)


def test_heed_trains_on_a_workload():
    lengths = np.random.default_rng(0).integers(1, 9, (2, 60))
    pairs = TokenPairs(*(Ragged([[5] * n for n in side]) for side in lengths))
    run, facts = train_heed.make(Workload(pairs, TINY, 3), "float32", True, True)
    real = lengths.sum() + 2 * 60
    assert 0 < run() <= 3 * real and facts["compilations"] <= 6
    assert facts["gflop_a_token"] > 0 and facts["input_tokens_per_s"] > 0
    assert facts["padding"] < 0.2


def test_workloads_are_as_they_are_described():
    source, target = workload("T1").pairs.lengths
    assert source.tolist() == target.tolist() == [64] * 32
    source, target = workload("T2").pairs.lengths
    assert np.median(source) == 18 and max(source.max(), target.max()) == 64


def test_the_loop_is_measured_in_turn_with_bare_steps(text, tmp_path):
    experiment = small_experiment(text, num_steps=2)
    t = set_up(experiment, tmp_path / "no")
    step, state = train_loop._compiled(t)
    assert len(step.traced) == len(t.data.schedule.buckets) == int(state.step)
    costs = [*train_loop._costs(t, step, state, 2)]
    assert train_loop._delivered(t, batches=2) > 0
    assert len(costs) == 2 and all(-1 < cost < 100 for cost in costs)
    assert train_loop._gflop_a_token(t) > 0


def test_the_whole_command_is_measured(text, tmp_path):
    values = dict(value.split("=") for value in SMALL) | {
        "data.path": train_loop._text(text, ("en", "de"), tmp_path),
        "train.num_steps": 4,
        "train.log_every": 2,
    }
    told = train_loop._command(values, tmp_path / "run")
    assert told["tokens_per_second"] > 0 and 0 <= told["padding"] < 1 and told["startup_s"] > 0
    assert told["peak_mb"] > 50


def test_text_that_is_not_there_is_named(tmp_path, benchmark_main):
    train = benchmark_main("train")
    with pytest.raises(SystemExit, match="needs --data=DIR with train.en"):
        with flagsaver.flagsaver(workload="T3", data=str(tmp_path)):
            train.main([])
    with pytest.raises(SystemExit, match="--languages=en: T3 needs two"):
        with flagsaver.flagsaver(workload="T3", data=str(tmp_path), languages=["en"]):
            train.main([])
    with pytest.raises(SystemExit, match="--peers=pytorch: T3 is Heed's own command"):
        with flagsaver.flagsaver(workload="T3", peers=["pytorch"]):
            train.main([])
