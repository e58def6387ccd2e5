"""Finding what fits, with a compiler whose memory is a known function; and memory messages."""

from dataclasses import replace

import jax
import pytest

from aot.fit import fit
from aot.memory import GIB, Memory, memory_of_failure
from aot.report import Report
from aot.targets import Hardware, Target
from model import ConfigError
from model.sharding import make_mesh

TARGET = Target("fake:8", "fake", Hardware("tpu", 16 * GIB), jax.devices()[:8])


def compiler(state_gib: float, activation_gib: float):
    """Compile to a state that fsdp divides, and activations that tokens and remat scale."""
    calls = []

    def compile_variant(changes, mesh):
        if mesh.shape["tensor"] > 2:
            raise ConfigError("mesh.tensor does not divide the model")
        settings = {"remat": "none", "grad_accum_steps": 1, "tokens_per_batch": 1000} | changes
        scale = settings["tokens_per_batch"] / 1000 / settings["grad_accum_steps"]
        scale *= {"none": 1.0, "dots": 0.7, "full": 0.3}[settings["remat"]]
        activations = int(activation_gib * GIB * scale) + GIB // 8
        state = int(state_gib * GIB / mesh.shape["fsdp"])
        memory = Memory({"parameters": state, "activations and gradients": activations}, 16 * GIB)
        calls.append((settings, dict(mesh.shape)))
        return Report("train", TARGET, dict(mesh.shape), {}, settings, 1, memory, 0.0)

    return compile_variant, calls


def test_the_largest_batch_on_the_best_mesh_is_found():
    compile_variant, calls = compiler(state_gib=8, activation_gib=2)
    *_, best = fit(compile_variant, TARGET, 1000, [], lambda _: None)
    assert best.memory.fits and best.mesh["fsdp"] == 8
    # 16 GiB hold 1 GiB of state and (16 - 1 - 1/8) / 2 thousand tokens.
    assert 0.93 * 7437 < best.settings["tokens_per_batch"] <= 7437
    assert best.settings["remat"] == "none" and len(calls) < 12


def test_a_run_that_does_not_fit_gets_recomputation():
    compile_variant, _ = compiler(state_gib=8, activation_gib=20)
    *_, best = fit(compile_variant, TARGET, 1000, [], lambda _: None)
    assert best.memory.fits and best.settings["remat"] == "dots"


def test_nothing_fits():
    compile_variant, _ = compiler(state_gib=400, activation_gib=20)
    with pytest.raises(ConfigError, match="nothing fits on fake:8 with data.tokens_per_batch=1000"):
        list(fit(compile_variant, TARGET, 1000, [], lambda _: None))


def test_a_mesh_that_does_not_divide_the_model_is_skipped_with_its_reason():
    compile_variant, calls = compiler(state_gib=1, activation_gib=2)
    messages = []
    list(fit(compile_variant, TARGET, 1000, [], messages.append))
    assert any("skipped tensor=8: mesh.tensor does not divide" in m for m in messages)
    assert all(mesh["tensor"] < 8 for _, mesh in calls)


def test_a_given_mesh_is_the_only_one():
    compile_variant, calls = compiler(state_gib=1, activation_gib=2)
    mesh = make_mesh(data=4, fsdp=2, devices=TARGET.devices)
    list(fit(compile_variant, TARGET, 1000, [mesh], lambda _: None))
    assert {tuple(m.values()) for _, m in calls} == {(4, 2, 1)}


def test_an_unknown_capacity_is_an_error():
    target = replace(TARGET, hardware=Hardware("cpu", 0))
    with pytest.raises(ConfigError, match="--fit needs the memory of a device"):
        list(fit(compiler(1, 1)[0], target, 1000, [], lambda _: None))


def test_the_memory_of_a_rejected_program_is_in_its_message():
    message = (
        "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space "
        "hbm. Used 32.00G of 15.75G hbm. Exceeded hbm capacity by 16.25G."
    )
    memory = memory_of_failure(message, {"parameters": 2 * GIB}, "activations and gradients")
    assert memory is not None and not memory.fits
    assert memory.total == 32 * GIB and memory.capacity == int(15.75 * GIB)
    assert memory.components["activations and gradients"] == 30 * GIB
    message = (
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (313.50G) exceeds available HBM (15.75G)."
    )
    memory = memory_of_failure(message, {"parameters": 2 * GIB}, "activations and gradients")
    assert memory is not None and memory.components["activations and gradients"] == 313.5 * GIB
    assert memory_of_failure("INTERNAL: something else", {}, "rest") is None
