"""Config files are valid experiments; settings are parsed, saved and checked."""

import json
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import experiments.configs
from experiments.config import Experiment
from experiments.config_io import default_config, to_config_dict, to_experiment
from experiments.setup import schedule_and_optimizer
from experiments.workdir import check_same_run, read_config, write_config
from model import BASE, BIG, TABLE3, ConfigError, Transformer

NAMES = sorted(p.stem for p in Path(experiments.configs.__path__[0]).glob("[!_]*.py"))


def build(name, *args):
    return to_experiment(import_module(f"experiments.configs.{name}").get_config(*args))


@pytest.mark.parametrize("name", NAMES)
def test_config_files_are_valid_experiments(name):
    card = import_module(f"experiments.configs.{name}").__doc__
    assert f"experiments/configs/{name}.py" in card
    experiment = build(name)
    _, tx = schedule_and_optimizer(experiment)
    ids = jnp.ones((1, 3), jnp.int32)
    model = Transformer(experiment.model)
    params = jax.eval_shape(model.init, jax.random.key(0), ids, ids)
    assert jax.tree.leaves(jax.eval_shape(tx.init, params))


def test_configs_have_the_papers_settings():
    base = build("wmt14_en_de_base")
    assert base.model == BASE
    o, t, s = base.optimizer, base.train, base.search
    assert (o.name, o.schedule, o.learning_rate, o.warmup_steps) == ("adam", "noam", 1.0, 4000)
    assert (o.b1, o.b2, o.epsilon, o.clip_norm) == (0.9, 0.98, 1e-9, 0.0)
    assert (t.label_smoothing, t.num_steps, t.ema_decay) == (0.1, 100_000, 0.0)
    assert (s.beam_size, s.alpha, s.max_length_offset) == (4, 0.6, 50)
    assert (base.data.tokens_per_batch, base.data.vocab_size) == (25_000, 37_000)
    assert build("wmt14_en_de_big").model == BIG
    assert build("wmt14_en_fr_big").model == replace(BIG, dropout=0.1)
    assert build("wmt14_en_fr_big").data.vocab_size == 32_000
    assert build("wmt14_en_fr_big").data.target_language == "fr"
    for row, model in TABLE3.items():
        assert build("table3", row).model == model
    assert build("table3", "D4").train.label_smoothing == 0.2
    with pytest.raises(ConfigError, match="no row 'B9'; choices: base, A1"):
        build("table3", "B9")


def test_settings_round_trip_through_flags_and_json():
    experiment = build("multi30k")
    assert to_experiment(to_config_dict(experiment)) == experiment
    assert to_experiment(json.loads(json.dumps(asdict(experiment)))) == experiment
    config = default_config()
    config.model.num_kv_heads = 2  # None by default, an integer if set
    assert to_experiment(config).model.num_kv_heads == 2


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"optimiser": {}}, "config.optimiser is unknown: did you mean optimizer"),
        ({"optimizer": {"warmup_step": 1}}, "warmup_step is unknown: did you mean warmup_steps"),
        ({"search": {"beam_size": 0}}, "config.search.beam_size=0 must be from 1"),
        ({"train": {"ema_decay": 1.0}}, "config.train.ema_decay=1.0 must be below 1"),
        ({"model": {"positions": "learned", "max_length": 9}}, "the number of learned positions"),
        ({"train": {"seed": 0.5}}, "config.train.seed=0.5 must be int"),
        ({"data": {"shared_vocab": 1}}, "config.data.shared_vocab=1 must be bool"),
        ({"model": {"norm": "past"}}, "model.norm='past' is not one of: post, pre"),
    ],
)
def test_invalid_settings_are_named(tree, message):
    with pytest.raises(ConfigError, match=message):
        to_experiment(tree)


def test_integers_are_accepted_for_floats():
    assert to_experiment({"train": {"max_minutes": 5}}).train.max_minutes == 5.0


def test_a_workdir_is_for_one_experiment(tmp_path):
    experiment = Experiment()
    check_same_run(tmp_path, experiment)
    write_config(tmp_path, experiment)
    assert read_config(tmp_path) == experiment
    longer = replace(experiment, train=replace(experiment.train, num_steps=5))
    check_same_run(tmp_path, longer)
    other = replace(experiment, model=replace(experiment.model, d_ff=64))
    check_same_run(tmp_path, other)  # no checkpoint exists yet
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(ConfigError, match="its model.d_ff is 2048, not 64; choose another folder$"):
        check_same_run(tmp_path, other, allow_batch_change=True)
    smaller = replace(experiment, optimizer=replace(experiment.optimizer, grad_accum_steps=2))
    with pytest.raises(
        ConfigError, match="grad_accum_steps is 1, not 2; .* with --allow_batch_change"
    ):
        check_same_run(tmp_path, smaller)
    check_same_run(tmp_path, smaller, allow_batch_change=True)
    with pytest.raises(ConfigError, match="holds no run"):
        read_config(tmp_path / "nothing")
