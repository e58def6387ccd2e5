"""LoRA training of an imported model: learning, resuming, merging and checkpoints."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest

from benchmarks.corruption import CORRUPTIONS, arrays, bitwise_equal, events
from experiments.config import LoraConfig
from experiments.config_io import default_config, to_experiment
from experiments.dry_run import estimate_resources
from experiments.lora import write_base
from experiments.restore import init_state, restore_or_init
from experiments.setup import set_up
from experiments.trainer import train
from experiments.workdir import load
from experiments.write_run import write_run
from interop.export_hf_marian import write_marian
from interop.hf_marian import read_marian
from model import ConfigError
from model.lora import merge
from tests.experiments.marian_folders import save_folder
from train.checkpoint import CheckpointError, CheckpointManager
from train.loop import total_metrics
from train.state import abstract_params
from train.step import make_eval_step

pytestmark = pytest.mark.slow

STEPS, HALF = 24, 12
ALL = "query,key,value,out,hidden,feed_forward_out"


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lora")
    save_folder(folder / "marian", encoder_layers=1, decoder_layers=1)
    write_run(folder / "imported", read_marian(folder / "marian", "", ""))
    return folder / "imported"


def experiment(base, rank=4, **lora):
    """Training on short demo sentences with adapters of the run `base`."""
    c = default_config()
    c.init_from = str(base)
    c.model.dropout = 0.1
    c.data.update(kind="demo", max_pairs=64, max_length=48, tokens_per_batch=800, num_buckets=1)
    c.data.update(packing=False, cache=False)
    c.optimizer.update(schedule="constant", learning_rate=0.02, warmup_steps=4, clip_norm=1.0)
    c.train.update(num_steps=STEPS, eval_every=HALF, checkpoint_every=HALF, log_every=4)
    c.train.update(eval_bleu_sentences=2, ema_decay=0.9)
    c.search.update(beam_size=1, max_length_offset=0)
    c.lora.update(rank=rank, projections=ALL, **lora)
    return to_experiment(c)


@pytest.fixture(scope="module")
def tuned(imported, tmp_path_factory):
    """A run of adapters, and its results."""
    workdir = tmp_path_factory.mktemp("lora") / "tuned"
    return workdir, train(experiment(imported), workdir)


def bits(tree):
    return jax.tree.map(np.asarray, tree)


def assert_equal(left, right):
    jax.tree.map(np.testing.assert_array_equal, bits(left), bits(right))


def test_adapters_learn_in_a_few_steps(tuned, imported):
    workdir, results = tuned
    base = load(imported)
    t = set_up(experiment(imported), workdir)
    evaluate = make_eval_step(base.model, base.mesh)
    batches = lambda: t.data.eval_batches("valid", t.mesh)  # noqa: E731
    before, loaded = (
        total_metrics(evaluate, loaded_model.params, batches()).to_dict()["loss"]
        for loaded_model in (base, load(workdir, "last"))
    )
    after = {e["step"]: e["loss"] for e in events(workdir) if e["event"] == "valid"}
    assert results["step"] == STEPS and after[STEPS] < after[HALF] < before - 1
    np.testing.assert_allclose(after[STEPS], loaded, rtol=1e-5)
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))  # noqa: E731
    assert results["num_params"] == count(base.params) > 2 * results["num_trainable_params"] > 0
    sizes = estimate_resources(t)
    counts = "num_params", "num_trainable_params"
    assert {name: sizes[name] for name in counts} == {name: results[name] for name in counts}
    memory = sizes["bytes_per_device"]
    assert memory["ema"] == 4 * results["num_trainable_params"]
    assert memory["params"] == 4 * (results["num_params"] + results["num_trainable_params"])
    assert 2 * memory["ema"] <= memory["optimizer"] < 2 * memory["ema"] + 100


def test_a_run_resumes_exactly_without_its_base_run(tuned, imported, tmp_path):
    base, resumed, (uninterrupted, _) = tmp_path / "base", tmp_path / "resumed", tuned
    shutil.copytree(imported, base)
    c = experiment(base)
    train(replace(c, train=replace(c.train, num_steps=HALF)), resumed)
    shutil.rmtree(base)
    train(c, resumed)
    assert bitwise_equal(
        *(arrays(run / "checkpoints", STEPS, run) for run in (uninterrupted, resumed))
    )
    assert_equal(load(resumed, "params:last").params, load(uninterrupted, "params:last").params)
    losses = [
        [e["loss"] for e in events(run) if e["event"] == "train"]
        for run in (uninterrupted, resumed)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == STEPS // 4


def test_a_run_loads_as_the_merged_model(tuned, imported, tmp_path):
    workdir, _ = tuned
    base, merged = load(imported), load(workdir, "last")
    assert type(merged.model) is type(base.model) and merged.step == STEPS
    assert_equal(load(workdir, "ema").params, merged.params)
    trainable = set_up(experiment(imported), workdir).trainable
    steps, merged_by_step = {}, {}
    with CheckpointManager(workdir / "checkpoints") as checkpoints:
        for step in HALF, STEPS:
            shapes = abstract_params(trainable, merged.mesh)
            steps[step] = checkpoints.restore_params(f"params:{step}", shapes)
            merged_by_step[step] = bits(merge(base.params, steps[step], 16 / 4))
    close = lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6)  # noqa: E731
    jax.tree.map(close, bits(load(workdir, "params:last").params), merged_by_step[STEPS])
    mean = jax.tree.map(lambda x, y: (x + y) / 2, *merged_by_step.values())
    jax.tree.map(close, bits(load(workdir, "average:2").params), mean)
    assert all(leaf.dtype == np.float32 for leaf in jax.tree.leaves(merged.params))
    (tmp_path / "out").mkdir()
    write_marian(merged, tmp_path / "out", lambda _: None)
    reimported = read_marian(tmp_path / "out", "", "")
    attention = merged.params["decoder_0"]["cross_attention"]
    assert_equal(reimported.params["decoder_0"]["cross_attention"], attention)
    difference = np.asarray(attention["query"]) - np.asarray(
        base.params["decoder_0"]["cross_attention"]["query"]
    )
    assert np.abs(difference).max() > 1e-3


@pytest.mark.parametrize("rank", [0, 2], ids=["full", "adapters"])
def test_further_training_starts_from_the_merged_weights(tuned, tmp_path, rank):
    workdir, _ = tuned
    t = set_up(experiment(workdir, rank), tmp_path / "further")
    state = init_state(t)
    assert_equal(t.weights(state), load(workdir).params)
    assert (state.base is None) == (rank == 0)


def test_checkpoints_have_only_adapters_and_the_base_is_stored_once(tuned):
    workdir, results = tuned
    size = lambda folder: sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())  # noqa: E731
    metadata = [
        json.loads(p.read_text()) for p in (workdir / "checkpoints").rglob("*/params/_METADATA")
    ]
    assert len(metadata) == 2
    for checkpoint in metadata:
        names = [name.split("'")[-2] for name in checkpoint["tree_metadata"]]
        assert set(names) == {"a", "b"} and len(names) == 2 * (6 + 10)
    base, checkpoint = workdir / "base" / "0", workdir / "checkpoints" / str(STEPS)
    assert 0 < size(checkpoint / "params") < size(base / "params")
    assert not list((workdir / "checkpoints").rglob("base"))


def test_invalid_lora_settings_are_named(imported, tmp_path):
    with pytest.raises(ConfigError, match="config.lora.rank=-1 must be at least 0"):
        LoraConfig(rank=-1)
    with pytest.raises(ConfigError, match="config.lora.alpha=0.0 must be above 0"):
        LoraConfig(alpha=0.0)
    with pytest.raises(ConfigError, match="lora.projections=query,valu: 'valu' .* mean value?"):
        LoraConfig(projections="query,valu")
    assert LoraConfig(projections="query, out").names == ("query", "out")
    with pytest.raises(ConfigError, match="lora.rank=4 adapts .*: set config.init_from"):
        experiment("")
    c = experiment(imported)
    with pytest.raises(ConfigError, match="lora.projections=gate is not in this model, which has"):
        set_up(replace(c, lora=LoraConfig(rank=4, projections="gate")), tmp_path / "no")
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(rank=2), "its lora.rank is 4, not 2"),
        (dict(rank=0), "its lora.rank is 4, not 0"),
        (dict(alpha=8.0), "its lora.alpha is 16.0, not 8.0"),
    ],
)
def test_other_lora_settings_need_another_workdir(tuned, imported, change, message):
    with pytest.raises(ConfigError, match=f"{message}; choose another folder"):
        set_up(experiment(imported, **change), tuned[0])


@pytest.mark.parametrize("damage", ["with one bit flipped", "gone"])
def test_a_corrupt_or_missing_base_is_a_one_line_error(damage, tuned, imported, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(tuned[0], workdir)
    if damage == "gone":
        shutil.rmtree(workdir / "base")
    else:
        files = [file for file in (workdir / "base/0/params").rglob("*") if file.is_file()]
        CORRUPTIONS[damage](max(files, key=lambda file: file.stat().st_size))
    t = set_up(experiment(imported), workdir)
    for action in t.restore_target, lambda: load(workdir):
        with pytest.raises(CheckpointError, match=f"{workdir}/base.*put it back") as error:
            action()
        assert "\n" not in str(error.value)


def test_adapters_are_not_merged_into_another_base(tuned, imported, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(tuned[0], workdir)
    t = set_up(experiment(imported), workdir)
    other = load(workdir, mesh=t.mesh).params
    write_base(workdir, init_state(t)._replace(base=other), {"of": "x"})
    with CheckpointManager(workdir / "checkpoints") as checkpoints:
        for action in lambda: load(workdir), lambda: restore_or_init(t, checkpoints):
            with pytest.raises(CheckpointError, match=f"{workdir}/base is another one: .*put it"):
                action()
