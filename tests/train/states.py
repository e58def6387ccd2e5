"""Small train states on meshes, and their comparison."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from model.sharding import make_mesh
from train.state import TrainState

META = {"vocabulary": "abc", "elapsed_seconds": 12.5}


def make_state(value=1.0, mesh=(2, 2, 2), ema=True, width=8, sgd=False):
    mesh = make_mesh(*mesh, devices=jax.devices()[: np.prod(mesh)])
    layout = {"w": NamedSharding(mesh, P("fsdp", "tensor")), "bias": NamedSharding(mesh, P())}
    params = {
        "w": value * jax.random.normal(jax.random.key(1), (8, width)),
        "bias": jnp.float32([0, np.pi]),
    }
    put = lambda tree: jax.tree.map(jax.device_put, tree, layout)  # noqa: E731
    params = put(params)
    replicated = lambda x: jax.device_put(x, NamedSharding(mesh, P()))  # noqa: E731
    return TrainState(
        replicated(jnp.int32(7)),
        params,
        jax.tree.map(
            lambda x: x if x.ndim else replicated(x),
            (optax.sgd if sgd else optax.adam)(0.1).init(params),
        ),
        replicated(jax.random.key(3)),
        jax.tree.map(lambda x: x / 3, params) if ema else None,
    )


def shapes(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)
