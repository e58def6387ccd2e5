"""LoRA adapters: merging, initialization, gradients and sharding."""

from dataclasses import replace
from functools import cache
from itertools import product

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import ConfigError, Transformer, TransformerConfig
from model.lora import PROJECTIONS, Adapter, LoRAModel, merge, select_adapted
from model.sharding import make_mesh, param_shardings

GATED = TransformerConfig(
    vocab_size=16,
    encoder_layers=1,
    decoder_layers=1,
    d_model=8,
    d_ff=6,
    num_heads=4,
    num_kv_heads=2,
    d_k=2,
    d_v=3,
    activation="swiglu",
    decoder_mixer="ssru",
    dropout=0.0,
)
PLAIN = replace(GATED, activation="relu", decoder_mixer="attention")
SCANNED = replace(PLAIN, encoder_layers=2, scan_layers=True)
IDS = jnp.ones((2, 5), jnp.int32) * jnp.arange(1, 6, dtype=jnp.int32)[None]
SCALE = 0.75


@cache
def setup(config, projections=PROJECTIONS):
    """The adapted model, base parameters, and adapters without zero entries."""
    model = LoRAModel(Transformer(config), 3, SCALE, projections)
    shapes = (jax.eval_shape(m.init_params, jax.random.key(0)) for m in (model.model, model))
    base, adapters = (random_tree(nn.unbox(tree), seed) for seed, tree in enumerate(shapes))
    return model, base, adapters


def projections_of(config):
    """Names of the projections in the model."""
    absent = {"candidate", "forget"} if config.decoder_mixer == "attention" else set()
    absent |= {"gate"} if config.activation == "relu" else set()
    return tuple(name for name in PROJECTIONS if name not in absent)


def random_tree(shapes, seed):
    """A tree of random values, none zero, in the given shapes."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(random.normal(0, 0.5, x.shape), jnp.float32), shapes)


def by_path(tree):
    is_adapter = lambda x: isinstance(x, Adapter)  # noqa: E731
    return {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree.leaves_with_path(tree, is_leaf=is_adapter)
    }


def merge_with_loops(matrix, a, b):
    """Merges entry by entry: matrix [inputs,outputs], a [inputs,R], b [R,outputs]."""
    out = np.array(matrix, np.float64)
    ins, outs = a.shape[:-1], b.shape[1:]
    for i, o in product(np.ndindex(ins), np.ndindex(outs)):
        for r in range(a.shape[-1]):
            out[i + o] += SCALE * float(a[(*i, r)]) * float(b[(r, *o)])
    return out


@pytest.mark.parametrize("config", [GATED, PLAIN, SCANNED], ids=["gated", "plain", "scanned"])
def test_merged_matrices_equal_plain_loops(config):
    _, base, adapters = setup(config, projections_of(config))
    trees = jax.jit(merge, static_argnums=2)(base, adapters, SCALE), base, adapters
    merged, base_matrices, adapters_by_path = (
        by_path(jax.tree.map(np.asarray, tree)) for tree in trees
    )
    for path, matrix in merged.items():
        if path not in adapters_by_path:
            np.testing.assert_array_equal(matrix, base_matrices[path])
            continue
        triples = [(base_matrices[path], *adapters_by_path[path])]
        if config.scan_layers:
            triples = list(zip(*triples[0], strict=True))
        expected = [merge_with_loops(*triple) for triple in triples]
        expected = np.stack(expected) if config.scan_layers else expected[0]
        np.testing.assert_allclose(matrix, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [GATED, PLAIN], ids=["gated", "plain"])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_a_projection_is_adapted_in_every_layer(config, projection):
    if projection not in projections_of(config):
        with pytest.raises(ConfigError, match=f"lora.projections={projection} is not in this mod"):
            setup(config, (projection,))
        return
    mixers = ["self_attention"] if config.decoder_mixer == "attention" else []
    layers = [f"encoder_0/{m}" for m in ("attention", "feed_forward")]
    layers += [f"decoder_0/{m}" for m in ("cross_attention", "feed_forward", "ssru", *mixers)]
    kind = "attention" if projection in PROJECTIONS[:4] else "feed_forward"
    kind = "ssru" if projection in PROJECTIONS[-2:] else kind
    name = projection.removeprefix("feed_forward_") + "/kernel" * (kind != "attention")
    expected = {f"{layer}/{name}" for layer in layers if layer.endswith(kind)}
    assert by_path(setup(config, (projection,))[2]).keys() == expected


def test_initial_adapters_do_not_change_the_output():
    model, base, learned = setup(PLAIN, projections_of(PLAIN))
    init = jax.jit(lambda key: nn.unbox(model.init_params(key)))
    adapters = init(jax.random.key(1))
    plain = jax.jit(model.model.apply)({"params": base}, IDS, IDS)
    adapted = jax.jit(model.apply)
    unchanged = adapted({"params": adapters, "base": base}, IDS, IDS)
    np.testing.assert_array_equal(unchanged, plain)
    changed = adapted({"params": learned, "base": base}, IDS, IDS)
    assert np.abs(np.asarray(changed) - np.asarray(plain)).max() > 0.1
    for adapter in by_path(adapters).values():
        assert adapter.b.any() == False and 0.2 < adapter.a.std() * len(adapter.a) ** 0.5 < 3  # noqa: E712
    first_values = {float(adapter.a.ravel()[0]) for adapter in by_path(adapters).values()}
    assert len(first_values) == len(by_path(adapters))  # each adapter has its own random values


def test_adapter_gradients_follow_the_chain_rule():
    model, base, adapters = setup(PLAIN, projections_of(PLAIN))
    loss = lambda logits: jnp.sum(jnp.sin(logits))  # noqa: E731
    adapter_loss = lambda p: loss(model.apply({"params": p, "base": base}, IDS, IDS))  # noqa: E731
    model_loss = lambda p: loss(model.model.apply({"params": p}, IDS, IDS))  # noqa: E731
    adapter_grads = jax.jit(jax.grad(adapter_loss))(adapters)
    model_grads = jax.jit(jax.grad(model_loss))(merge(base, adapters, SCALE))
    matrix_grads, adapters_by_path = (
        by_path(select_adapted(model_grads, adapters)),
        by_path(adapters),
    )
    for path, grad in by_path(adapter_grads).items():
        a, b = map(np.asarray, adapters_by_path[path])
        matrix_grad = np.reshape(matrix_grads[path], (a[..., 0].size, b[0].size))
        grad_a = SCALE * matrix_grad @ b.reshape(len(b), -1).T
        grad_b = SCALE * a.reshape(-1, a.shape[-1]).T @ matrix_grad
        np.testing.assert_allclose(grad.a.reshape(grad_a.shape), grad_a, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(grad.b.reshape(grad_b.shape), grad_b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("config", [PLAIN, SCANNED], ids=["plain", "scanned"])
def test_adapters_are_sharded_like_their_matrices_except_the_rank_axis(config):
    model, *_ = setup(config, projections_of(config))
    mesh = make_mesh(2, 2, 2)
    init = lambda m: jax.eval_shape(m.init_params, jax.random.key(0))  # noqa: E731
    base_shardings = param_shardings(init(model.model), mesh)
    adapter_shardings = param_shardings(init(model), mesh)
    matrix_shardings = by_path(select_adapted(base_shardings, adapter_shardings))
    for path, adapter in by_path(adapter_shardings).items():
        a, b = (tuple(sharding.spec) for sharding in adapter)
        stacked = int(config.scan_layers)
        assert a[-1] is None and b[stacked] is None
        assert a[:-1] + b[stacked + 1 :] == tuple(matrix_shardings[path].spec), path
