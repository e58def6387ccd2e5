"""Matrix products in the operands' dtype equal jnp.einsum, and are bfloat16 products on a CPU."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from data.batch import Batch
from model import TransformerConfig
from model.einsum import einsum
from model.transformer import Transformer

SUBSCRIPTS = {
    "...td,dhk->...htk": ((2, 3, 5, 8), (8, 2, 4)),
    "...htv,hvd->...td": ((2, 3, 5, 4), (3, 4, 8)),
    "...i,io->...o": ((3, 5, 8), (8, 6)),
    "...i,oi->...o": ((5, 8), (6, 8)),
    "nd,vd->nv": ((7, 8), (9, 8)),
}


def gradients(product, x, y):
    result, vjp = jax.vjp(product, x, y)
    return result, *vjp(jnp.cos(result))


@pytest.mark.parametrize("subscripts", SUBSCRIPTS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_results_and_gradients_equal_exact_ones(subscripts, dtype):
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=s), dtype) for s in SUBSCRIPTS[subscripts])
    got = gradients(lambda x, y: einsum(subscripts, x, y), x, y)
    exact = gradients(
        lambda x, y: jnp.einsum(subscripts, x, y, precision="highest"),
        *(array.astype("float32") for array in (x, y)),
    )
    for a, b in zip(got, exact, strict=True):
        assert a.dtype == dtype and a.shape == b.shape
        tolerance = {"float32": 1e-6, "bfloat16": 2e-2}[dtype]
        np.testing.assert_allclose(
            a.astype("float32"), b, tolerance, tolerance * float(abs(b).max())
        )


def products(jaxpr):
    """All matrix products without batch axes in a jaxpr and those that it contains."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            if not any(equation.params["dimension_numbers"][1]):
                yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from products(inner)


@pytest.mark.parametrize(
    "variant", [{}, {"activation": "swiglu"}, {"transpose_down_projection": False}]
)
def test_a_train_step_on_a_cpu_has_bfloat16_products_with_float32_results(variant):
    config = TransformerConfig(
        vocab_size=16,
        encoder_layers=1,
        decoder_layers=1,
        d_model=8,
        d_ff=12,
        num_heads=2,
        dtype="bfloat16",
    )
    model = Transformer(replace(config, **variant))
    ids = jnp.ones((2, 3), jnp.int32)
    params = jax.eval_shape(model.init, jax.random.key(0), ids, ids)

    def loss(params):
        return jnp.sum(model.apply(params, Batch(ids, ids), method="features").hidden)

    found = list(products(jax.make_jaxpr(jax.grad(loss))(params).jaxpr))
    assert len(found) >= 3 * 16  # a forward product and two of the backward pass for each matrix
    for equation in found:
        assert [str(x.aval.dtype) for x in equation.invars] == ["bfloat16"] * 2
        assert str(equation.outvars[0].aval.dtype) == "float32"
