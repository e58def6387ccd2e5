"""Fixtures for training: a tiny Transformer and batches for it."""

import gc
from functools import cache
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from data.batch import EOS, PAD, Batch
from model import Transformer, TransformerConfig
from model.sharding import make_mesh
from train.optimizer import make_optimizer, make_schedule
from train.state import create_state
from train.step import make_train_step

VOCABULARY = 32


def make_batch(seed: int, rows: int = 16, source: int = 7, target: int = 6) -> Batch:
    """A batch of rows with random lengths, one of them empty."""
    random = np.random.default_rng(seed)

    def ids(length):
        out = random.integers(4, VOCABULARY, (rows, length)).astype(np.int32)
        for row, end in zip(out, random.integers(1, length, rows), strict=True):
            row[end], row[end + 1 :] = EOS, PAD
        out[3] = PAD
        return out

    return Batch(ids(source), ids(target))


@pytest.fixture(scope="session")
def tiny():
    """A factory of training setups: `tiny((2, 2, 2), dropout=0.0)`; mesh None: one device."""

    @cache  # tests share compiled programs
    def make(mesh=(8, 1, 1), dropout=0.5, grad_accum_steps=1, ema_decay=0.5):
        model = Transformer(
            TransformerConfig(
                vocab_size=VOCABULARY,
                encoder_layers=1,
                decoder_layers=1,
                d_model=16,
                d_ff=32,
                num_heads=2,
                dropout=dropout,
            )
        )
        schedule = make_schedule("inverse_sqrt", learning_rate=0.01, warmup_steps=4)
        tx = make_optimizer("adamw", schedule, weight_decay=0.01, clip_norm=1.0)
        mesh = make_mesh(*mesh) if mesh else make_mesh(1, devices=jax.devices()[:1])
        options = dict(label_smoothing=0.1, grad_accum_steps=grad_accum_steps, ema_decay=ema_decay)
        step = make_train_step(model, tx, mesh, **options)

        @cache
        def initial_state(seed):
            return create_state(model, tx, jax.random.key(seed), mesh, ema=ema_decay > 0)

        def fresh(seed=0):
            return jax.tree.map(lambda x: x.copy(), initial_state(seed))  # updates donate the state

        return SimpleNamespace(
            model=model, tx=tx, mesh=mesh, schedule=schedule, step=step, fresh=fresh
        )

    return make


@pytest.fixture(scope="session")
def batch_of():
    return make_batch


@pytest.fixture(scope="session")
def bits():
    """A function from a tree to NumPy arrays, with PRNG keys as raw data, for exact comparison."""

    def leaf(x):
        is_key = hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)
        return np.asarray(jax.random.key_data(x) if is_key else x)

    return lambda tree: jax.tree.map(leaf, tree)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "checkpoints"


@pytest.fixture
def frozen_garbage():
    """Each failure collects garbage, which takes seconds with many compiled programs."""
    gc.freeze()
    yield
    gc.unfreeze()
