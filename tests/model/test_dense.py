"""Dense layers: the same results and gradients in the forms of all platforms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import dense
from model.dense import Dense


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("transposed", [False, True])
def test_results_and_gradients_are_those_of_the_formula(platform, dtype, transposed, monkeypatch):
    monkeypatch.setattr(dense, "current_platform", lambda: platform)
    normal = jax.nn.initializers.normal(1.0)
    layer = Dense(6, jnp.dtype(dtype), normal, normal, transposed=transposed)
    x = jax.random.normal(jax.random.key(0), (3, 5, 8), dtype)
    variables = layer.init(jax.random.key(1), x)

    def loss(apply, variables, x):
        return jnp.sum(jnp.sin(apply(variables, x).astype(jnp.float32)))

    def formula(variables, x):
        kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
        return jnp.einsum("btd,do->bto", x, kernel, precision="highest") + bias[None, None]

    actual = jax.grad(loss, (1, 2))(layer.apply, variables, x)
    expected = jax.grad(loss, (1, 2))(formula, variables, x.astype(jnp.float32))
    tolerance = {"float32": 1e-5, "bfloat16": 0.1}[dtype]
    for a, b in zip(*map(jax.tree.leaves, (actual, expected)), strict=True):
        np.testing.assert_allclose(a.astype("float32"), b, atol=tolerance * float(abs(b).max()))


def test_without_a_bias_there_is_no_parameter_for_it():
    layer = Dense(6, jnp.float32, jax.nn.initializers.ones)
    assert set(layer.init(jax.random.key(0), jnp.ones((1, 2)))["params"]) == {"kernel"}
