"""The compile command on the CPU, which needs no further compiler, and its error lines."""

import json

import pytest

from experiments.aot_programs import MEAN_LENGTH, config_batch, parse_mesh
from experiments.config import DataConfig, Experiment
from tests.experiments.commands import error_line, heed

pytestmark = pytest.mark.slow
TINY = "--config=experiments/configs/tiny.py"


def test_the_train_step_on_several_meshes(tmp_path):
    arguments = ("--target=cpu:4", "--mesh=data=4", "--mesh=fsdp=2,tensor=2", "--format=json")
    code, out, err = heed("compile", TINY, "--batches=config", *arguments, f"--output={tmp_path}")
    assert code == 0, err
    data, mixed = map(json.loads, out.splitlines())
    assert data["mesh"] == {"data": 4, "fsdp": 1, "tensor": 1} and data["devices"] == 4
    assert mixed["mesh"] == {"data": 1, "fsdp": 2, "tensor": 2}
    assert data["batch"] == {"rows": 4, "source": 256, "target": 256}
    assert data["batch_from"] == "config" and data["fits"] and data["capacity_per_device"] is None
    for report in data, mixed:
        parts = dict(report["bytes_per_device"])
        assert parts.pop("total") == sum(parts.values())
        assert report["bytes_in_total"] == 4 * report["bytes_per_device"]["total"]
        assert report["compiler_estimate"] is None and report["useful_flops_per_device"] > 0
    # Float32 parameters and their two moments.
    assert data["bytes_per_device"]["parameters"] == 4 * data["num_params"]
    assert mixed["bytes_per_device"]["parameters"] < data["bytes_per_device"]["parameters"] / 1.8
    assert {c["axes"] for c in data["collectives"]} == {"data"}
    assert {c["axes"] for c in mixed["collectives"]} >= {"fsdp", "tensor"}
    page = (tmp_path / "compile.html").read_text()
    assert page.count("data=4") >= 2 and "fsdp=2, tensor=2" in page and "<script" not in page
    programs = sorted(file.name for file in tmp_path.glob("*.hlo.txt"))
    assert programs == ["1_train_data=4.hlo.txt", "2_train_fsdp=2_tensor=2.hlo.txt"]
    assert "ENTRY" in (tmp_path / programs[0]).read_text()


def test_the_batch_of_the_text_and_a_search_as_text():
    code, out, err = heed("compile", TINY, "--target=cpu:2")
    assert code == 0 and "(from the text)" in out, err
    assert "activations and gradients" in out and "all-reduce" in out and "over data" in out
    code, out, err = heed("compile", TINY, "--target=cpu:2", "--what=search", "--sentences=2")
    assert code == 0, err
    assert "collectives: none" in out and "sentences 4, source 32" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target=v9x"], "--target=v9x: the part after ':' must be like 2x2"),
        (["--target=m1:4"], "--target=m1:4 is unknown: use a TPU (v4, v5e, v5p, v6e)"),
        (["--target=h100:0"], "--target=h100:0: the part after ':' must be like 8"),
        (["--target=cpu:4", "--mesh=fsdp=3"], "does not fit 4 devices"),
        (["--target=cpu:4", "--mesh=pipeline=2"], "--mesh=pipeline=2: 'pipeline=2' is not like"),
        (["--target=cpu:4", "--config.mesh.tensor=4"], "mesh.tensor=4 does not divide"),
        (["--target=cpu:4", "--sentences=3"], "--sentences has no effect with --what=train"),
        (["--target=cpu:4", "--what=search", "--fit"], "--fit has no effect with --what=search"),
        (["--target=cpu:4", "--fit"], "--fit needs the memory of a device"),
        (["--target=cpu:1", "--output=setup.cfg/x"], "--output=setup.cfg/x cannot be created"),
    ],
)
def test_a_mistake_is_one_line(flags, message):
    assert message in error_line("compile", TINY, *flags)


def test_a_batch_of_the_config_fills_its_rows():
    experiment = Experiment(data=DataConfig(tokens_per_batch=10_000, max_length=100))
    bucket, (source, target) = config_batch(experiment)
    assert bucket.source == bucket.target == 100 and bucket.rows * 100 <= 10_000
    assert set(source) == {MEAN_LENGTH} and len(source) == bucket.rows * (100 // MEAN_LENGTH)
    assert list(source) == list(target)


def test_a_mesh_is_parsed():
    import jax

    from aot.targets import Hardware, Target

    target = Target("cpu:8", "cpu", Hardware("cpu", 0), jax.devices()[:8])
    assert dict(parse_mesh("fsdp=2, tensor=2", target).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert dict(parse_mesh("", target).shape) == {"data": 8, "fsdp": 1, "tensor": 1}
