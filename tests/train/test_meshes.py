"""Training on every mesh: same results, and only the necessary collectives."""

import re
from functools import cache

import jax
import numpy as np
import pytest

from data.batch import EOS, PAD, Batch
from model import Transformer, TransformerConfig
from model.sharding import make_mesh
from train.optimizer import make_optimizer, make_schedule
from train.state import create_state
from train.step import make_train_step

pytestmark = pytest.mark.slow

MESHES = [(8, 1, 1), (1, 8, 1), (1, 1, 8), (2, 2, 2)]
KINDS = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")
V, D, ROWS, LENGTH = 512, 32, 16, 9
CONFIG = TransformerConfig(
    vocab_size=V, encoder_layers=1, decoder_layers=1, d_model=D, d_ff=64, num_heads=8, dropout=0.1
)


def batch_of(step):
    random = np.random.default_rng(step)
    ids = random.integers(4, V, (2, ROWS, LENGTH)).astype(np.int32)
    for side in ids:
        for row, end in zip(side, random.integers(1, LENGTH, ROWS), strict=True):
            row[end], row[end + 1 :] = EOS, PAD
    return Batch(*ids)


def setup(mesh):
    model = Transformer(CONFIG)
    tx = make_optimizer("adam", make_schedule("constant", learning_rate=0.003, warmup_steps=5))
    mesh = make_mesh(*mesh) if mesh else make_mesh(devices=jax.devices()[:1])
    step = make_train_step(model, tx, mesh, label_smoothing=0.1)
    return step, create_state(model, tx, jax.random.key(0), mesh)


@cache
def twenty_steps(mesh):
    step, state = setup(mesh)
    losses_and_norms = []
    for i in range(20):
        state, metrics = step(state, batch_of(i))
        losses_and_norms.append((float(metrics.loss), float(metrics.grad_norm_sum)))
    return np.array(losses_and_norms), jax.tree.map(np.asarray, state.params)


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_twenty_steps_equal_one_device(mesh):
    (expected, params), (actual, mesh_params) = twenty_steps(None), twenty_steps(mesh)
    assert expected[-1, 0] < expected[0, 0] - 0.2
    np.testing.assert_allclose(actual, expected, rtol=1e-4)
    # Adam takes a full step even for a gradient of rounding errors; 20 steps are 0.06.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-3), mesh_params, params)


def collectives(text):
    """[(kind, elements of its largest output)] of the collectives in a compiled program's text."""
    ops = []
    for shapes, kind in re.findall(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(", text):
        sizes = [
            int(np.prod([int(n) for n in dims.split(",") if n] or [1]))
            for dims in re.findall(r"\[([\d,]*)\]", shapes)
        ]
        ops.append((kind, max(sizes)))
    return ops


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_a_train_step_has_only_the_necessary_collectives(mesh):
    step, state = setup(mesh)
    data, fsdp, tensor = mesh
    ops = collectives(step.lower_and_compile(state, batch_of(0)).as_text())
    reduced = {size for kind, size in ops if kind in ("all-reduce", "reduce-scatter")}
    gathered = [size for kind, size in ops if kind == "all-gather"]
    assert len(reduced) and {kind for kind, _ in ops} <= {*KINDS[:3]}, ops
    sizes = {leaf.size for leaf in jax.tree.leaves(state.params)}
    shares = {size // part for size in sizes for part in (1, tensor)}
    gradients = shares | {share // fsdp for share in shares}
    assert bool(gathered) == (fsdp > 1)
    assert set(gathered) <= shares  # only parameters are gathered
    hidden = ROWS // (data * fsdp) * LENGTH * D
    # Gradients are reduced, and with a tensor axis hidden states and softmax statistics of
    # each row, but never logits, which are V / D = 16 times larger.
    softmax = hidden // D
    allowed = gradients | {1} | ({hidden, softmax} if tensor > 1 else set())
    assert reduced <= allowed, ops
    if mesh == (8, 1, 1):
        assert len(ops) == 1  # one all-reduce of all gradients
