"""A dry run reports the resources that a run uses."""

import json
import re
from dataclasses import replace

import jax
import pytest

from experiments import dry_run
from experiments.config import MeshConfig
from experiments.dry_run import estimate_resources
from experiments.setup import set_up
from experiments.translator import build_translator
from tests.experiments.commands import heed, small_experiment, train_args
from train.state import create_state


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [(8, 1, 1), (1, 4, 2)])
def test_bytes_per_device_are_correct(text, tmp_path, mesh, monkeypatch):
    experiment = replace(small_experiment(text, ema_decay=0.9), mesh=MeshConfig(*mesh))
    t = set_up(experiment, tmp_path / "no")
    estimate = estimate_resources(t)
    assert not (tmp_path / "no").exists()
    state = create_state(t.model, t.tx, jax.random.key(0), t.mesh, ema=True)
    device_bytes = lambda tree: sum(  # noqa: E731
        leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree)
    )
    memory = estimate["bytes_per_device"]
    assert memory["params"] == memory["ema"] == device_bytes(state.params)
    assert memory["optimizer"] == device_bytes(state.opt_state)
    assert memory["activations"] > memory["params"]  # includes gradients
    translator = build_translator(experiment, t.model, state.ema, t.vocabulary, t.mesh)
    assert memory["search"] == device_bytes(translator.weights)
    temporary = max(memory["activations"], memory["search"])
    assert memory["total"] == temporary + sum(
        memory[name] for name in ("params", "ema", "optimizer")
    )
    monkeypatch.setattr(dry_run, "_temporary", lambda *_: 1)  # as if a search took more
    assert (
        estimate_resources(t)["bytes_per_device"]["total"]
        == memory["total"] - temporary + memory["search"]
    )
    assert estimate["num_params"] == sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert estimate["mesh"] == dict(zip(("data", "fsdp", "tensor"), mesh, strict=True))
    rows = [batch["rows"] for batch in estimate["batches"]]
    assert rows and all(count % (mesh[0] * mesh[1]) == 0 for count in rows)


@pytest.mark.slow
def test_the_dry_run_writes_nothing_and_reports_what_the_run_does(run, text, tmp_path):
    _, _, err = run
    code, out, _ = heed("train", *train_args(text, tmp_path / "no"), "--dry_run")
    assert code == 0 and not (tmp_path / "no").exists()
    estimate = json.loads(out)
    assert f"{estimate['num_params']:,} parameters" in err
    shapes = ", ".join(f"{b['rows']}x({b['source']}, {b['target']})" for b in estimate["batches"])
    assert shapes in err and estimate["compilations"] == len(estimate["batches"])
    assert int(re.search(r"(\d+) batches an epoch", err)[1]) == estimate["steps_per_epoch"]
    assert (
        0
        < estimate["tokens_per_step"]
        < sum(b["rows"] * (b["source"] + b["target"]) for b in estimate["batches"])
    )
