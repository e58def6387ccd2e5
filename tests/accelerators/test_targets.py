"""Targets whose compilers are installed; what libtpu rejects; a missing compiler."""

import importlib.util
import json
import sys

import pytest

from aot.targets import GPUS, TPUS, open_target
from model import ConfigError
from model.sharding import make_mesh
from tests.experiments.commands import error_line, heed

TINY = "--config=experiments/configs/tiny.py"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("v4:2x2x2", 8),
        ("v5e:2x2", 4),
        ("v5e:16x16", 256),
        ("v5p:2x2x2", 8),
        ("v6e:4x4", 16),
        ("h100:8", 8),
        ("h100:2x8", 16),
        ("a100:1", 1),
        ("h200:4", 4),
        ("b200:8", 8),
    ],
)
def test_targets_have_devices(text, count):
    target = open_target(text)
    assert target.count == count and target.hardware.memory > 10 << 30
    assert target.devices[0].platform == ("gpu" if target.name in GPUS else "tpu")
    assert (target.hardware.clock > 0) == (target.name in TPUS)


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("v5p:4x4x4", dict(fsdp=8)),
        ("v5e:4x8", dict(fsdp=2, tensor=2)),
        ("h100:2x8", dict(tensor=4)),
    ],
)
def test_a_mesh_axis_may_be_a_part_of_a_physical_one(text, sizes):
    target = open_target(text)
    mesh = make_mesh(**sizes, devices=target.devices)
    assert {axis: mesh.shape[axis] for axis in sizes} == sizes
    assert len(set(mesh.devices.flat)) == target.count


def test_a_rejected_topology_is_one_line():
    with pytest.raises(ConfigError, match="--target=v5e:3x5: libtpu rejects this topology"):
        open_target("v5e:3x5")


@pytest.mark.parametrize(
    ("text", "module", "extra"), [("v5e:2x2", "libtpu", "tpu"), ("h100:2", "jax_plugins", "gpu")]
)
def test_a_missing_compiler_names_its_extra(monkeypatch, text, module, extra):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ConfigError, match=rf'pip install -e "\.\[aot-{extra}\]"'):
        open_target(text)


def test_a_program_that_does_not_fit_is_reported_with_what_would_help():
    changes = ("--config.data.tokens_per_batch=64000000", "--config.train.chunked_loss=False")
    arguments = (TINY, "--target=v5e:2x2", "--batches=config", *changes)
    code, out, err = heed("compile", *arguments)
    assert code == 0 and "DOES NOT FIT; what would help: mesh.fsdp=4" in out, err
    code, out, _ = heed("compile", *arguments, "--format=json")
    report = json.loads(out)
    assert not report["fits"] and report["headroom_per_device"] < 0


def test_an_estimate_is_called_one():
    code, out, err = heed("compile", TINY, "--target=v5e:2x2", "--batches=config")
    assert code == 0, err
    (line,) = (line for line in out.splitlines() if "cycles" in line)
    assert line.strip().startswith("compiler estimate: ") and "utilisation" in line
    assert "logits and loss" in out and "attention core" in out


def test_a_mesh_that_does_not_divide_is_one_line():
    message = error_line("compile", TINY, "--target=v5e:2x2", "--mesh=tensor=3", "--batches=config")
    assert "does not fit 4 devices" in message
