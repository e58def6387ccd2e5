"""An adapter adds a product of two thin matrices, and at first nothing."""

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
    """The adapted model, parameters of the plain one, and adapters of which no entry is zero."""
    model = LoRAModel(Transformer(config), 3, SCALE, projections)
    shapes = (jax.eval_shape(m.init_params, jax.random.key(0)) for m in (model.model, model))
    base, adapters = (drawn(nn.unbox(each), seed) for seed, each in enumerate(shapes))
    return model, base, adapters


def has(config):
    """The projections that a model has."""
    absent = {"candidate", "forget"} if config.decoder_mixer == "attention" else set()
    absent |= {"gate"} if config.activation == "relu" else set()
    return tuple(name for name in PROJECTIONS if name not in absent)


def drawn(shapes, seed):
    """A tree of these shapes, of which no entry is zero."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(random.normal(0, 0.5, x.shape), jnp.float32), shapes)


def by_path(tree):
    of = lambda x: isinstance(x, Adapter)  # noqa: E731
    return {
        "/".join(key.key for key in path): leaf
        for path, leaf in jax.tree.leaves_with_path(tree, is_leaf=of)
    }


def plainly(matrix, a, b):
    """One entry after the other: matrix [inputs,outputs], a [inputs,R], b [R,outputs]."""
    out = np.array(matrix, np.float64)
    ins, outs = a.shape[:-1], b.shape[1:]
    for i, o in product(np.ndindex(ins), np.ndindex(outs)):
        for r in range(a.shape[-1]):
            out[i + o] += SCALE * float(a[(*i, r)]) * float(b[(r, *o)])
    return out


@pytest.mark.parametrize("config", [GATED, PLAIN, SCANNED], ids=["gated", "plain", "scanned"])
def test_merged_matrices_are_those_of_plain_loops(config):
    _, base, adapters = setup(config, has(config))
    trees = jax.jit(merge, static_argnums=2)(base, adapters, SCALE), base, adapters
    found, before, each = (by_path(jax.tree.map(np.asarray, tree)) for tree in trees)
    for path, matrix in found.items():
        if path not in each:
            np.testing.assert_array_equal(matrix, before[path])
            continue
        triples = [(before[path], *each[path])]
        if config.scan_layers:
            triples = list(zip(*triples[0], strict=True))
        oracle = [plainly(*triple) for triple in triples]
        oracle = np.stack(oracle) if config.scan_layers else oracle[0]
        np.testing.assert_allclose(matrix, oracle, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("config", [GATED, PLAIN], ids=["gated", "plain"])
@pytest.mark.parametrize("projection", PROJECTIONS)
def test_each_projection_is_adapted_wherever_it_is(config, projection):
    if projection not in has(config):
        with pytest.raises(ConfigError, match=f"lora.projections={projection} is not in this mod"):
            setup(config, (projection,))
        return
    mixers = ["self_attention"] if config.decoder_mixer == "attention" else []
    layers = [f"encoder_0/{m}" for m in ("attention", "feed_forward")]
    layers += [f"decoder_0/{m}" for m in ("cross_attention", "feed_forward", "ssru", *mixers)]
    kind = "attention" if projection in PROJECTIONS[:4] else "feed_forward"
    kind = "ssru" if projection in PROJECTIONS[-2:] else kind
    name = projection.removeprefix("feed_forward_") + "/kernel" * (kind != "attention")
    wanted = {f"{layer}/{name}" for layer in layers if layer.endswith(kind)}
    assert by_path(setup(config, (projection,))[2]).keys() == wanted


def test_a_fresh_adapter_changes_no_bit():
    model, base, learned = setup(PLAIN, has(PLAIN))
    begin = jax.jit(lambda key: nn.unbox(model.init_params(key)))
    adapters = begin(jax.random.key(1))
    plain = jax.jit(model.model.apply)({"params": base}, IDS, IDS)
    adapted = jax.jit(model.apply)
    same = adapted({"params": adapters, "base": base}, IDS, IDS)
    np.testing.assert_array_equal(same, plain)
    other = adapted({"params": learned, "base": base}, IDS, IDS)
    assert np.abs(np.asarray(other) - np.asarray(plain)).max() > 0.1
    for adapter in by_path(adapters).values():
        assert adapter.b.any() == False and 0.2 < adapter.a.std() * len(adapter.a) ** 0.5 < 3  # noqa: E712
    spread = {float(adapter.a.ravel()[0]) for adapter in by_path(adapters).values()}
    assert len(spread) == len(by_path(adapters))  # each draws its own


def test_gradients_are_by_the_chain_rule_from_those_of_the_merged_matrices():
    model, base, adapters = setup(PLAIN, has(PLAIN))
    loss = lambda logits: jnp.sum(jnp.sin(logits))  # noqa: E731
    of_adapters = lambda p: loss(model.apply({"params": p, "base": base}, IDS, IDS))  # noqa: E731
    of_model = lambda p: loss(model.model.apply({"params": p}, IDS, IDS))  # noqa: E731
    own = jax.jit(jax.grad(of_adapters))(adapters)
    whole = jax.jit(jax.grad(of_model))(merge(base, adapters, SCALE))
    of_matrices, each = by_path(select_adapted(whole, adapters)), by_path(adapters)
    for path, found in by_path(own).items():
        a, b = map(np.asarray, each[path])
        inner = np.reshape(of_matrices[path], (a[..., 0].size, b[0].size))
        of_a = SCALE * inner @ b.reshape(len(b), -1).T
        of_b = SCALE * a.reshape(-1, a.shape[-1]).T @ inner
        np.testing.assert_allclose(found.a.reshape(of_a.shape), of_a, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.b.reshape(of_b.shape), of_b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("config", [PLAIN, SCANNED], ids=["plain", "scanned"])
def test_adapters_lie_where_their_matrices_do_and_the_rank_is_whole(config):
    model, *_ = setup(config, has(config))
    mesh = make_mesh(2, 2, 2)
    init = lambda m: jax.eval_shape(m.init_params, jax.random.key(0))  # noqa: E731
    boxes = param_shardings(init(model.model), mesh)
    adapters = param_shardings(init(model), mesh)
    whole = by_path(select_adapted(boxes, adapters))
    for path, adapter in by_path(adapters).items():
        a, b = (tuple(place.spec) for place in adapter)
        stacked = int(config.scan_layers)
        assert a[-1] is None and b[stacked] is None
        assert a[:-1] + b[stacked + 1 :] == tuple(whole[path].spec), path
