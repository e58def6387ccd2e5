"""The training benchmark, on a tiny model."""

import math
from dataclasses import replace

import jax
import numpy as np
import pytest
from absl.testing import flagsaver
from jax.extend.core import jaxprs_in_params

from benchmarks import train_heed, train_loop
from benchmarks.train_workloads import Workload, workload
from data.pipeline import Ragged, TokenPairs
from experiments.setup import set_up
from model import Transformer, TransformerConfig
from model.flops import training_flops
from tests.experiments.commands import SMALL, environment, small_experiment

pytestmark = pytest.mark.slow

TINY = TransformerConfig(
    vocab_size=40, encoder_layers=2, decoder_layers=3, d_model=8, d_ff=12, num_heads=2, dropout=0.0
)


def matmul_flops(jaxpr):
    """Floating-point operations of all matrix products in a program."""
    total = 0
    for equation in jaxpr.eqns:
        for inner in jaxprs_in_params(equation.params):
            total += matmul_flops(inner)
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left, out = equation.invars[0].aval.shape, equation.outvars[0].aval.shape
            total += 2 * math.prod(out) * math.prod(left[axis] for axis in contracted)
    return total


RECURRENT = replace(TINY, decoder_mixer="ssru")


@pytest.mark.parametrize("config", [TINY, replace(TINY, d_k=6), RECURRENT], ids=["", "d_k", "ssru"])
def test_counted_flops_equal_those_of_the_program(config):
    source, target = 5, 7
    model, src, tgt = (
        Transformer(config),
        np.ones((1, source), np.int32),
        np.ones((1, target), np.int32),
    )
    params = jax.eval_shape(model.init, jax.random.key(0), src, tgt)
    program = jax.make_jaxpr(model.apply)(params, src, tgt)
    # The program computes all of the decoder's self-attention, the formula the causal half.
    attention_flops = config.num_heads * (config.key_width + config.value_width) * target**2
    masked_flops = attention_flops * config.decoder_layers * (config.decoder_mixer == "attention")
    counted_flops = training_flops(config, np.array([source]), np.array([target])) / 3
    assert counted_flops + masked_flops == matmul_flops(program.jaxpr)


def test_heed_trains_on_a_workload():
    lengths = np.random.default_rng(0).integers(1, 9, (2, 60))
    pairs = TokenPairs(*(Ragged([[5] * n for n in side]) for side in lengths))
    run, facts = train_heed.make(Workload(pairs, TINY, 3), "float32", True, True)
    num_tokens = lengths.sum() + 2 * 60
    assert 0 < run() <= 3 * num_tokens and facts["compilations"] <= 6
    assert facts["gflop_per_token"] > 0 and facts["input_tokens_per_second"] > 0
    assert facts["padding_fraction"] < 0.2


def test_workloads_match_their_descriptions():
    source, target = workload("T1").pairs.lengths
    assert source.tolist() == target.tolist() == [64] * 32
    source, target = workload("T2").pairs.lengths
    assert np.median(source) == 18 and max(source.max(), target.max()) == 64


def test_the_training_loop_is_measured_interleaved_with_bare_steps(text, tmp_path):
    experiment = small_experiment(text, num_steps=2)
    t = set_up(experiment, tmp_path / "no")
    step, state = train_loop._compile(t)
    assert len(step.traced_shapes) == len(t.data.schedule.buckets) == int(state.step)
    costs = [*train_loop._loop_costs(t, step, state, 2)]
    assert train_loop._input_speed(t, batches=2) > 0
    assert len(costs) == 2 and all(-1 < cost < 100 for cost in costs)
    assert train_loop._gflop_per_token(t) > 0


def test_the_train_command_is_measured(text, tmp_path, monkeypatch):
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    values = dict(value.split("=") for value in SMALL) | {
        "data.path": train_loop._text(text, ("en", "de"), tmp_path),
        "train.num_steps": 4,
        "train.log_every": 2,
        "search.beam_size": 1,
    }
    result = train_loop._command(values, tmp_path / "run")
    assert result["tokens_per_second"] > 0 and result["startup_s"] > 0
    assert 0 <= result["padding_fraction"] < 1
    assert result["peak_mb"] > 50


def test_missing_text_is_named(tmp_path, benchmark_main):
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
