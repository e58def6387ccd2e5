"""Training in bfloat16 and float16: every config file and option, on one and more devices.

Each row of a covering design takes an update and evaluates. Other tests compare float32 results
exactly; these check that the compiler supports every combination.
"""

import importlib
import itertools
import math
import random
import zlib
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from data.batch import EOS, PAD, Batch
from experiments import configs
from experiments.config_io import to_experiment
from model import Transformer, TransformerConfig
from model.lora import LoRAModel
from model.sharding import make_mesh, param_shardings
from train.state import _initial_state, param_shapes, state_shardings
from train.step import eval_step, make_eval_step, make_train_step

pytestmark = pytest.mark.slow

V, ROWS, LENGTH = 64, 16, 9
SIZES = dict(vocab_size=V, encoder_layers=1, decoder_layers=1, d_model=32, d_ff=64, num_heads=4)
SIZES |= dict(num_kv_heads=None, d_k=None, d_v=None, target_vocab_size=None)
MODEL_OPTIONS = {  # model options that no config file enables
    "rotary": dict(positions="rotary", norm_kind="rms", activation="swiglu", mlp_bias=False)
    | dict(tying="none", attention_bias=True, attention_dropout=0.1, mlp_dropout=0.1),
    "relative": dict(
        positions="t5_bias", relative_num_buckets=8, tying="decoder", output_bias=True
    ),
    "recurrent": dict(decoder_mixer="ssru", embedding_norm=True, scale_embedding=False),
}
HALF = "multi30k", "table3:E", "rotary"
# These do not change the function.
SPEED_OPTIONS = ("remat", "transpose_down_projection", "dropout_bits", "scan_layers")
FACTORS = {
    "dtype": ["bfloat16", "float16"],
    "mesh": [(1, 1, 1), (2, 2, 1), (1, 2, 2)],
    "chunked": [True, False],
    "remat": ["none", "dots", "full"],
    "transpose_down_projection": [True, False],
    "dropout_bits": [16, 32],
    "packed": [True, False],
    "grad_accum_steps": [1, 2],
    "scan_layers": [False, True],
    "lora": [False, True],
    "ema": [0.0, 0.9],
}


def structures() -> dict[str, TransformerConfig]:
    """Distinct models of the config files at tiny sizes, and SWITCHES."""
    names_by_model = {}
    names = [file.stem for file in Path(configs.__file__).parent.glob("[a-z]*.py")]
    for name in [*sorted(names), "table3:E"]:
        module, *row = name.split(":")
        get_config = importlib.import_module(f"experiments.configs.{module}").get_config
        model = replace(to_experiment(get_config(*row)).model, **SIZES)
        names_by_model.setdefault(replace(model, dropout=0.1 * (model.dropout > 0)), name)
    named = {name: model for model, name in names_by_model.items()}
    return named | {
        name: replace(named["demo"], **option) for name, option in MODEL_OPTIONS.items()
    }


STRUCTURES = structures()


def pairs(row: dict) -> set:
    """All pairs of a row's values."""
    return {*itertools.combinations(row.items(), 2)}


@cache
def design() -> list[tuple[str, dict]]:
    """Rows with all pairs of FACTORS' values: each structure in bfloat16, some in float16."""
    rng, covered, rows = random.Random(4), set(), []
    named = [(name, "bfloat16") for name in STRUCTURES]
    for name, dtype in [*named, *((name, "float16") for name in HALF)]:
        candidates = (
            {factor: rng.choice(values) for factor, values in FACTORS.items()} | {"dtype": dtype}
            for _ in range(1000)
        )
        row = max(candidates, key=lambda row: len(pairs(row) - covered))
        covered |= pairs(row)
        rows.append((name, row))
    return rows


def test_the_design_has_all_pairs():
    covered = set().union(*(pairs(row) for _, row in design()))
    for (factor, values), (other_factor, other_values) in itertools.combinations(
        FACTORS.items(), 2
    ):
        if {factor, other_factor} == {"mesh", "remat"}:  # would need more rows than all other pairs
            continue
        for x, y in itertools.product(values, other_values):
            assert ((factor, x), (other_factor, y)) in covered


def batch_of(packed: bool, rows=ROWS, length=LENGTH, vocab=V) -> Batch:
    """Two sentences per row, or the same sentences in separate rows."""
    ids = np.random.default_rng(0).integers(4, vocab, (2, rows, length)).astype(np.int32)
    half = 1 + np.arange(rows) % (length - 2)
    ids[:, np.arange(rows), half] = ids[..., -1] = EOS
    in_first = np.broadcast_to(np.arange(length) <= half[:, None], ids.shape)
    if packed:
        return Batch(*ids, *np.where(in_first, 1, 2).astype(np.int32))
    second = [
        np.stack([np.roll(row, -end - 1) for row, end in zip(side, half, strict=True)])
        for side in ids
    ]
    in_second = np.arange(length) < (length - 1 - half)[:, None]
    return Batch(
        *np.concatenate([np.where(in_first, ids, PAD), np.where(in_second, second, PAD)], 1)
    )


def parameters(model: Transformer | LoRAModel) -> dict:
    """Random parameters that depend on their names, not on whether layers are scanned.

    Adapters have no effect initially.
    """

    def leaf(path, shape):
        name = jax.tree_util.keystr(path).replace("_0'", "'")
        draw = np.random.default_rng(zlib.crc32(name.encode()))
        values = 0.15 * draw.standard_normal(shape.shape)
        return np.float32(values * (not name.endswith(".b")) + name.endswith("['scale']"))

    return jax.tree.map_with_path(leaf, nn.unbox(param_shapes(model)))


@cache
def float32_loss(model: TransformerConfig, batch) -> float:
    """The loss on one device, without packing or chunks."""
    plain = Transformer(model)
    step = jax.jit(partial(eval_step, model=plain, label_smoothing=0.1))
    return float(step(parameters(plain), batch_of(packed=False, **dict(batch))).loss)


def check(
    model: TransformerConfig, packed: bool, batch: dict, mesh, dtype, lora=False, ema=0.0, **options
):
    """An evaluation, one update, and (without adapters) another evaluation."""
    data, mesh = batch_of(packed, **batch), make_mesh(*mesh, jax.devices()[: math.prod(mesh)])
    trained = plain = Transformer(replace(model, dtype=dtype))
    if lora:
        trained = LoRAModel(plain, 2, 4.0, ("out", "hidden", "feed_forward_out"))
    tx, base = optax.sgd(0.1), parameters(plain) if lora else None
    state = _initial_state(trained, tx, ema > 0, parameters(trained), jax.random.key(0))
    state = jax.tree.map(lambda x: x.copy(), state)  # updates donate the state
    shardings = state_shardings(trained, tx, mesh, ema=ema > 0)
    base_shardings = param_shardings(param_shapes(plain), mesh) if lora else None
    state = jax.device_put(state._replace(base=base), shardings._replace(base=base_shardings))
    step = make_train_step(trained, tx, mesh, label_smoothing=0.1, ema_decay=ema, **options)
    evaluate = make_eval_step(
        plain, mesh, label_smoothing=0.1, chunked=options.get("chunked", True)
    )

    valid = evaluate(state.base if lora else state.params, data)
    before = jax.tree.map(np.asarray, state.params)
    state, metrics = step(state, data)
    assert metrics.skipped == 0 and np.isfinite(metrics.grad_norm_sum) and metrics.grad_norm_sum > 0
    expected = float32_loss(plain_config(model), tuple(batch.items()))
    np.testing.assert_allclose(valid.loss, expected, rtol=0.01)
    np.testing.assert_allclose(metrics.loss, expected, rtol=0.1 if model.dropout else 0.01)
    leaves = zip(*map(jax.tree.leaves, (before, state.params)), strict=True)
    changed = [(x != y).any() for x, y in leaves]
    assert any(changed) if lora else all(changed)
    assert lora or evaluate(state.params, data).loss < valid.loss - 0.001


def plain_config(model: TransformerConfig) -> TransformerConfig:
    """The same function without dropout and speed options."""
    defaults = {name: getattr(TransformerConfig, name) for name in SPEED_OPTIONS}
    return replace(model, dropout=0.0, attention_dropout=0.0, mlp_dropout=0.0, **defaults)


@pytest.mark.parametrize(("name", "row"), design(), ids=lambda x: x if isinstance(x, str) else "")
def test_training_and_evaluation_are_close_to_float32(name, row):
    row = dict(row)
    model = replace(STRUCTURES[name], **{option: row.pop(option) for option in SPEED_OPTIONS})
    check(model, row.pop("packed"), {}, **row)


@pytest.mark.parametrize(
    ("config", "devices", "grad_accum_steps"),
    [("tiny", 1, 1), ("demo", 1, 2), ("demo", 2, 1)],
    ids=["tiny", "demo with accumulation", "demo on two devices"],
)
def test_devices_with_few_positions_train_in_bfloat16(config, devices, grad_accum_steps):
    """So few that their logits fit one chunk, at the sizes of the config files."""
    experiment = to_experiment(
        importlib.import_module(f"experiments.configs.{config}").get_config()
    )
    vocab, length = experiment.data.vocab_size, 125
    model = replace(experiment.model, vocab_size=vocab, encoder_layers=1, decoder_layers=1)
    batch = dict(
        rows=experiment.data.tokens_per_batch // length // 2 * 2, length=length, vocab=vocab
    )
    check(model, True, batch, (devices, 1, 1), dtype="bfloat16", grad_accum_steps=grad_accum_steps)
