"""Programs compiled for a TPU and for GPUs that are not here: what they contain and need.

Needs the compilers: pip install -e ".[aot-tpu,aot-gpu]".
"""

import re
from functools import cache, partial

import jax
import jax.numpy as jnp
import pytest

from aot.collectives import collectives
from aot.hlo import Program
from aot.targets import open_target
from benchmarks.estimates import (
    CONFIG,
    PROGRAMS,
    compile_program,
    compilers,
    figures,
    read_table,
)
from model import Transformer
from model.sharding import make_mesh
from model.short_attention import short_attention
from train.state import abstract_params

report = cache(compile_program)
TRAINING = [name for name, small in PROGRAMS.items() if not small.method]
SEARCHES = [name for name, small in PROGRAMS.items() if small.method]
REPLICATED = [name for name in TRAINING if set(PROGRAMS[name].mesh) == {"data"}]


def num_params():
    mesh = make_mesh(devices=jax.devices()[:1])
    return sum(p.size for p in jax.tree.leaves(abstract_params(Transformer(CONFIG), mesh)))


@pytest.mark.parametrize("name", PROGRAMS)
def test_no_host_callback_and_no_float64(name):
    text = report(name).text
    assert "f64[" not in text and Program(text).host_transfers() == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_memory_and_cycles_are_those_of_the_table(name):
    table = read_table()
    renew = "renew the table: python -m benchmarks.estimates --write"
    assert compilers() in table, renew
    expected, measured = table[compilers()][name], figures(report(name))
    assert measured.keys() == expected.keys()
    for key, value in expected.items():
        assert measured[key] == pytest.approx(value, rel=0.03, abs=4096), f"{key}; {renew}"


@pytest.mark.parametrize("name", REPLICATED)
def test_gradients_are_reduced_once_per_step(name):
    found = report(name).collectives
    assert {c.kind for c in found} == {"all-reduce"} and {c.axes for c in found} == {"data"}
    # Never in a loop over chunks of positions; micro-batches reduce what cannot wait.
    if PROGRAMS[name].grad_accum_steps == 1:
        assert not any(c.in_loop for c in found)
    reduced = sum(c.bytes for c in found)
    assert 2 * num_params() <= reduced <= 4.2 * num_params() * PROGRAMS[name].grad_accum_steps
    assert sum(c.executions for c in found if not c.in_loop) <= 4


@pytest.mark.parametrize("name", [n for n in TRAINING if "fsdp" in n])
def test_fsdp_gathers_parameters_and_scatters_gradients(name):
    found = report(name).collectives
    assert {c.axes for c in found} == {"fsdp"}
    gathered = sum(c.bytes for c in found if c.kind == "all-gather")
    assert gathered >= 2 * num_params()  # in bfloat16, once or twice
    data = report(name.replace("fsdp", "data")).memory.components
    sharded = report(name).memory.components
    devices = PROGRAMS[name].mesh["fsdp"]
    for part in "parameters", "optimizer":
        assert sharded[part] < 1.1 * data[part] / devices


@pytest.mark.parametrize("name", [n for n in TRAINING if "tensor" in n])
def test_tensor_parallelism_reduces_activations_over_its_axis(name):
    assert "tensor" in {c.axes for c in report(name).collectives if c.kind == "all-reduce"}


@pytest.mark.parametrize("name", SEARCHES)
def test_a_data_parallel_search_has_no_collectives(name):
    assert report(name).collectives == []


@pytest.mark.parametrize(("name", "kernels"), [("tpu-splash", 3), ("tpu-short", 2)])
def test_a_kernel_is_in_the_program_for_each_attention(name, kernels):
    # Of encoder, decoder and cross-attention: a forward pass and one or two backward kernels.
    targets = re.findall(r'custom_call_target="(\w+)"', report(name).text)
    assert targets.count("tpu_custom_call") == 3 * kernels
    cycles = report(name).cycles
    assert cycles is not None
    assert sum(k.executions for k in cycles.kernels) == 3 * kernels
    assert {k.component for k in cycles.kernels} == {"attention core"}
    assert all(k.cycles for k in cycles.kernels)


@pytest.mark.parametrize("target", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_the_kernel_for_short_rows_compiles_for_every_tpu(target):
    """The largest blocks: 256 positions of a width of 1,024."""
    mesh = make_mesh(devices=open_target(target).devices[:1])
    replicated = jax.NamedSharding(mesh, jax.P())
    array = partial(jax.ShapeDtypeStruct, sharding=replicated)
    rows, ids = array((2, 256, 1024), "bfloat16"), array((2, 256), "int32")

    def loss(q, k, v, query_ids, key_ids):
        mixed = short_attention(q, k, v, query_ids, key_ids, 16, True)
        return jnp.sum(mixed.astype(jnp.float32))

    with jax.set_mesh(mesh):
        step = jax.jit(jax.grad(loss, (0, 1, 2))).lower(rows, rows, rows, ids, ids).compile()
    assert step.as_text().count("tpu_custom_call") == 1  # the backward pass needs no other


def test_cudnn_is_in_the_program_for_each_attention():
    targets = re.findall(r'custom_call_target="__cudnn\$(\w+)"', report("gpu-cudnn").text)
    assert len(targets) == 6 and sum("Backward" in target for target in targets) == 3


def test_every_loop_of_a_train_step_has_a_trip_count():
    for name in [name for name in TRAINING if "tensor" not in name]:
        program = Program(report(name).text)
        loops = [i for body in program.computations.values() for i in body if i.opcode == "while"]
        assert loops and all(program.trip_count(loop) for loop in loops), name


def test_a_collective_in_a_loop_is_found():
    """The tests above can fail: a psum in a loop is reported with its trip count."""
    target = open_target("v5e:2x2")
    mesh = make_mesh(devices=target.devices)

    def body(x):
        return jax.lax.fori_loop(0, 5, lambda _, y: jax.lax.psum(y, "data") * 0.5, x)

    rows = jax.P("data")
    step = jax.shard_map(body, mesh=mesh, in_specs=rows, out_specs=rows, check_vma=False)
    x = jax.ShapeDtypeStruct((64, 256), "float32", sharding=jax.NamedSharding(mesh, rows))
    (found,) = collectives(Program(jax.jit(step).lower(x).compile().as_text()), mesh.shape)
    assert found.in_loop and found.executions == 5 and found.axes == "data"
    assert found.bytes == 5 * 16 * 256 * 4


@pytest.mark.parametrize("target", ["v5e:2x2", "cpu:1"])
def test_a_host_callback_is_found(target):
    device = open_target(target).devices[0]
    x = jax.ShapeDtypeStruct((8,), "float32", sharding=jax.sharding.SingleDeviceSharding(device))

    def step(x):
        jax.debug.callback(lambda _: None, x)
        return x

    assert Program(jax.jit(step).lower(x).compile().as_text()).host_transfers()
