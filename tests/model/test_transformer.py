"""Every variant of the Transformer: training, cached decoding, meshes and gradients agree."""

from dataclasses import replace
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from model import ConfigError, Transformer, TransformerConfig, init_cache
from model.sharding import RULES, batch_sharding, make_mesh, param_shardings, use_mesh
from model.transformer import unstack_layers

SMALL = TransformerConfig(
    vocab_size=24, encoder_layers=2, decoder_layers=2, d_model=16, d_ff=32, num_heads=4
)
# Each value of each setting, several per variant: compilation dominates the cost of these tests.
VARIANTS = {
    "paper": {},
    "pre": {"norm": "pre", "activation": "gelu", "attention_bias": True, "position_offset": 2},
    "rms": {"norm": "pre", "norm_kind": "rms", "activation": "silu", "d_k": 6, "d_v": 3},
    "halves": {"positions": "sinusoidal_concat", "activation": "geglu", "norm_kind": "rms"},
    "learned": {"positions": "learned", "max_length": 8, "tying": "none", "target_vocab_size": 20}
    | {"embedding_norm": True},
    "rotary": {"positions": "rotary", "activation": "reglu", "remat": "full", "mlp_dropout": 0.3},
    "grouped": dict(positions="rotary", num_kv_heads=2, activation="swiglu", mlp_bias=False),
    "relative": {"positions": "t5_bias", "relative_num_buckets": 6, "relative_max_distance": 8}
    | {"num_kv_heads": 2, "scan_layers": True, "remat": "dots", "activation": "geglu_tanh"},
    "uneven": {"encoder_layers": 1, "decoder_layers": 3, "attention_dropout": 0.5}
    | {"tying": "decoder", "target_vocab_size": 20},
    "scanned": {"scan_layers": True, "remat": "dots", "norm": "pre", "attention_bias": True},
    "recurrent": {"decoder_mixer": "ssru", "scan_layers": True, "remat": "full"},
    "bfloat16": {"dtype": "bfloat16"},
    "float16": {"dtype": "float16"},
}
EVERY_PREFIX = ("paper", "learned", "grouped", "relative", "scanned")
SRC = jnp.array([[5, 6, 7, 2, 0], [9, 2, 0, 0, 0]], jnp.int32)
TGT = jnp.array([[1, 5, 6, 7, 8], [1, 8, 9, 10, 11]], jnp.int32)


def make(**changes):
    return make_model(replace(SMALL, **changes))


@cache
def make_model(config):
    """A model and its variables; not jitted, so that models share the programs of operations."""
    model = Transformer(config)
    params = nn.unbox(model.init(jax.random.key(0), SRC, TGT))["params"]
    # Larger than initial values, so that every layer affects the logits.
    noise = lambda p: p + 0.1 * jax.random.normal(jax.random.key(p.size), p.shape)  # noqa: E731
    return model, {"params": jax.tree.map(noise, params)}


@cache
def jitted(model):
    """The model's `apply`, one program for all tests that call it with the same shapes."""
    return jax.jit(model.apply, static_argnames="method")


@pytest.mark.parametrize("variant", VARIANTS)
def test_cached_steps_equal_teacher_forcing(variant):
    model, variables = make(**VARIANTS[variant])
    tolerance = 0.1 if variant.endswith("float16") else 1e-5
    apply = jitted(model)
    full = apply(variables, SRC, TGT)
    assert full.dtype == jnp.float32 and full.shape == (2, 5, model.config.target_vocab)
    memory = apply(variables, SRC, method="encode")
    cross = apply(variables, memory, method="cross_kv")
    decode = partial(apply, method="decode")
    lengths = range(1, 6) if variant in EVERY_PREFIX else (1, 3)
    for prefix in lengths:  # prefill `prefix` tokens, then decode one by one
        cache, chunks = init_cache(model.config, (2,), 7), []
        for start, end in [(0, prefix)] + [(i, i + 1) for i in range(prefix, 5)]:
            logits, cache = decode(variables, TGT[:, start:end], cross, SRC != 0, cache, start)
            chunks.append(logits)
        np.testing.assert_allclose(jnp.concatenate(chunks, 1), full, atol=tolerance)

    # Beams: the cache has a beam axis, the source's keys and values have none.
    beams = jnp.stack([TGT, TGT[:, ::-1]], 1)
    cache = init_cache(model.config, (2, 2), 6)
    logits, _ = decode(variables, beams, cross, SRC != 0, cache, 0)
    np.testing.assert_allclose(logits[:, 0], full, atol=tolerance)
    reversed_logits = apply(variables, SRC, TGT[:, ::-1])
    np.testing.assert_allclose(logits[:, 1], reversed_logits, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", ["paper", "rotary", "grouped", "relative", "scanned", "recurrent"]
)
def test_padding_and_future_tokens_have_no_effect(variant):
    model, variables = make(**VARIANTS[variant])
    apply = partial(jitted(model), variables)
    logits = apply(SRC, TGT)
    padded = jnp.pad(SRC, ((0, 0), (0, 3)))
    np.testing.assert_allclose(apply(padded, TGT), logits, atol=1e-5)
    changed = apply(SRC, TGT.at[:, 3:].set(13))
    np.testing.assert_allclose(changed[:, :3], logits[:, :3], atol=1e-6)
    assert jnp.abs(changed[:, 3:] - logits[:, 3:]).max() > 1e-3
    assert jnp.abs(apply(SRC.at[:, 0].set(3), TGT) - logits).max() > 1e-3


VARIANT_WITH_POSITIONS = {
    "sinusoidal": "paper",
    "sinusoidal_concat": "halves",
    "learned": "learned",
    "rotary": "grouped",
    "t5_bias": "relative",
}


@pytest.mark.parametrize("positions", VARIANT_WITH_POSITIONS)
def test_source_order_matters(positions):
    model, variables = make(**VARIANTS[VARIANT_WITH_POSITIONS[positions]])
    assert model.config.positions == positions
    swapped = SRC.at[0, :3].set(jnp.array([7, 6, 5]))
    logits = jitted(model)(variables, SRC, TGT)
    assert jnp.abs(jitted(model)(variables, swapped, TGT)[0] - logits[0]).max() > 1e-3


@cache
def value_and_grad(model):
    def loss(params):
        rngs = {"dropout": jax.random.key(3)}
        logits = model.apply({"params": params}, SRC, TGT, train=True, rngs=rngs)
        return jnp.square(jax.nn.log_softmax(logits)).mean()

    return jax.jit(jax.value_and_grad(loss))


def gradient(model, variables):
    return value_and_grad(model)(variables["params"])


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["dots", "full"])
def test_rematerialization_preserves_gradients(remat):
    plain, variables = make()
    rematerialized = Transformer(replace(SMALL, remat=remat))
    (loss, grads), (remat_loss, remat_grads) = (
        gradient(plain, variables),
        gradient(rematerialized, variables),
    )
    np.testing.assert_allclose(loss, remat_loss, rtol=1e-6)
    jaxprs = [str(jax.make_jaxpr(m.apply)(variables, SRC, TGT)) for m in (plain, rematerialized)]
    assert ["checkpoint" in text or "remat" in text for text in jaxprs] == [False, True]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), grads, remat_grads)


def test_transposed_down_projection_preserves_gradients():
    transposed, variables = make()
    plain = Transformer(replace(SMALL, transpose_down_projection=False))
    (loss, grads), (plain_loss, plain_grads) = (
        gradient(transposed, variables),
        gradient(plain, variables),
    )
    np.testing.assert_allclose(loss, plain_loss, rtol=1e-6)
    jaxprs = [str(jax.make_jaxpr(m.apply)(variables, SRC, TGT)) for m in (transposed, plain)]
    assert ["optimization_barrier" in text for text in jaxprs] == [True, False]
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)  # noqa: E731
    jax.tree.map(close, grads, plain_grads)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["scanned", "relative"])
def test_scanned_layers_equal_unrolled_layers(variant):
    model, variables = make(**VARIANTS[variant] | dict(remat="none"))
    config, params = unstack_layers(model.config, variables["params"])
    assert not config.scan_layers and "decoder_1" in params and "decoder" not in params
    scanned = jitted(model)(variables, SRC, TGT)
    unrolled = jitted(Transformer(config))({"params": params}, SRC, TGT)
    np.testing.assert_allclose(unrolled, scanned, atol=1e-5)


@pytest.mark.parametrize("kind", ["dropout", "attention_dropout", "mlp_dropout"])
def test_dropout_is_a_function_of_its_key(kind):
    model, variables = make(**{"dropout": 0.0, kind: 0.5})
    run = lambda key, train: model.apply(  # noqa: E731
        variables, SRC, TGT, train=train, rngs={"dropout": jax.random.key(key)}
    )
    np.testing.assert_array_equal(run(1, True), run(1, True))
    assert jnp.abs(run(1, True) - run(2, True)).max() > 1e-3
    np.testing.assert_array_equal(run(1, False), model.apply(variables, SRC, TGT))


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_has_a_gradient_and_axis_names(variant):
    model, variables = make(**VARIANTS[variant])
    loss, grads = gradient(model, variables)
    assert jnp.isfinite(loss)
    for path, leaf in jax.tree.leaves_with_path(grads):
        assert leaf.dtype == jnp.float32 and jnp.isfinite(leaf).all()
        # A key bias shifts all scores of a query equally, which softmax ignores.
        assert (jnp.abs(leaf).max() > 0) or "key_bias" in jax.tree_util.keystr(path), path
    axis_names = {name for name, _ in RULES} | {None}
    boxed = jax.eval_shape(model.init, jax.random.key(0), SRC, TGT)
    boxes = jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, nn.Partitioned))
    for box in boxes:
        assert isinstance(box, nn.LogicallyPartitioned)
        assert len(box.names) == box.value.ndim and set(box.names) <= axis_names


@pytest.mark.parametrize(("tying", "tables"), [("all", 1), ("decoder", 2), ("none", 3)])
def test_tying_shares_embedding_tables(tying, tables):
    model = Transformer(replace(SMALL, tying=tying))
    params = jax.eval_shape(model.init, jax.random.key(0), SRC, TGT)["params"]
    shapes = [p.shape for p in jax.tree.leaves(params)]
    assert sum(sorted(s) == [16, 24] for s in shapes) == tables


def test_learned_positions_are_limited_by_their_table():
    model, variables = make(**VARIANTS["learned"])
    with pytest.raises(ConfigError, match="9 positions, but the learned table"):
        model.apply(variables, jnp.ones((1, 9), jnp.int32), TGT[:1])
    with pytest.raises(ConfigError, match="a cache of 9 tokens, but the learned positions end"):
        init_cache(model.config, (1,), 9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sizes", "changes"),
    [
        ((8, 1, 1), {}),
        ((2, 2, 2), dict(positions="t5_bias")),
        ((1, 1, 8), {}),
        ((1, 8, 1), {}),
    ],
)
def test_a_mesh_preserves_logits(sizes, changes):
    layers = dict(encoder_layers=1, decoder_layers=1)
    config = replace(SMALL, num_heads=8, d_model=32, **layers, **changes)
    model = Transformer(config)
    src, tgt = jnp.tile(SRC, (4, 1)), jnp.tile(TGT, (4, 1))
    abstract = jax.eval_shape(model.init, jax.random.key(0), src, tgt)
    init = lambda key: nn.unbox(model.init(key, src, tgt))  # noqa: E731
    unsharded = jax.jit(init)(jax.random.key(0))
    mesh = make_mesh(*sizes)
    shardings = param_shardings(abstract, mesh)
    with use_mesh(mesh):
        variables = jax.jit(init, out_shardings=shardings)(jax.random.key(0))
        # Equal up to rounding: vectorized code depends on the shard's shape.
        close = partial(np.testing.assert_allclose, rtol=1e-6)
        jax.tree.map(close, variables, unsharded)
        step = jax.jit(model.apply, in_shardings=(shardings, *[batch_sharding(mesh)] * 2))
        assert "sharding_constraint" in step.lower(variables, src, tgt).as_text()
        logits = step(variables, src, tgt)
    np.testing.assert_allclose(logits, jitted(model)(unsharded, src, tgt), atol=1e-5)
    kernel = variables["params"]["encoder_0"]["feed_forward"]["hidden"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (32 // sizes[1], 32 // sizes[2])


def test_a_mesh_that_does_not_fit_the_devices_is_rejected():
    assert dict(make_mesh(-1, 2, 2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    for sizes in (3, 1, 1), (-1, 3, 1), (-1, -1, 1), (0, 1, 1):
        with pytest.raises(ConfigError, match="mesh.data="):
            make_mesh(*sizes)


def test_a_mesh_that_does_not_divide_the_model_is_rejected():
    model = Transformer(replace(SMALL, num_kv_heads=2))
    abstract = jax.eval_shape(model.init, jax.random.key(0), SRC, TGT)
    message = r"mesh.tensor=8 does not divide the 2 kv_heads of .*/key: .* it may be 1, 2$"
    with pytest.raises(ConfigError, match=message):
        param_shardings(abstract, make_mesh(-1, 1, 8))
    param_shardings(abstract, make_mesh(-1, 1, 2))


@pytest.mark.parametrize("tying", ["all", "none"])
def test_logits_are_not_rounded_to_the_activations_dtype(tying):
    model, variables = make(tying=tying, dtype="bfloat16")
    logits = jitted(model)(variables, SRC, TGT)
    assert (logits != logits.astype(jnp.bfloat16).astype(jnp.float32)).any()
