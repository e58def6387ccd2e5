"""The same learning on every mesh, and no word between devices but those that it takes."""

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
    told = []
    for i in range(20):
        state, metrics = step(state, batch_of(i))
        told.append((float(metrics.loss), float(metrics.grad_norm_sum)))
    return np.array(told), jax.tree.map(np.asarray, state.params)


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_loss_gradient_and_parameters_are_the_same_after_twenty_steps(mesh):
    (one, params), (many, others) = twenty_steps(None), twenty_steps(mesh)
    assert one[-1, 0] < one[0, 0] - 0.2
    np.testing.assert_allclose(many, one, rtol=1e-4)
    # Adam makes a whole step of a gradient that is hardly more than rounding; 20 are 0.06.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-3), others, params)


def collectives(text):
    """[(kind, elements of the largest array that it yields)] in a compiled program's text."""
    found = []
    for shapes, kind in re.findall(rf"= (.*?) ({'|'.join(KINDS)})(?:-start)?\(", text):
        sizes = [
            int(np.prod([int(n) for n in dims.split(",") if n] or [1]))
            for dims in re.findall(r"\[([\d,]*)\]", shapes)
        ]
        found.append((kind, max(sizes)))
    return found


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_devices_say_no_more_to_each_other_than_they_must(mesh):
    step, state = setup(mesh)
    data, fsdp, tensor = mesh
    found = collectives(step.compiled(state, batch_of(0)).as_text())
    reduced = {size for kind, size in found if kind in ("all-reduce", "reduce-scatter")}
    allgather = [size for kind, size in found if kind == "all-gather"]
    assert len(reduced) and {kind for kind, _ in found} <= {*KINDS[:3]}, found
    sizes = {leaf.size for leaf in jax.tree.leaves(state.params)}
    shares = {size // part for size in sizes for part in (1, tensor)}
    gradients = shares | {share // fsdp for share in shares}
    assert bool(allgather) == (fsdp > 1)
    assert set(allgather) <= shares  # parameters are gathered, and nothing else
    hidden = ROWS // (data * fsdp) * LENGTH * D
    # Gradients are summed, and with a tensor axis what its devices know of hidden states and
    # of each row's softmax: no logits, which are V / D = 16 times as large.
    softmax = hidden // D
    allowed = gradients | {1} | ({hidden, softmax} if tensor > 1 else set())
    assert reduced <= allowed, found
    if mesh == (8, 1, 1):
        assert len(found) == 1  # all gradients at once
