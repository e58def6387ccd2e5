"""Exact parameter counts of the named configurations, and rejected settings."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from model import BASE, BIG, TABLE3, ConfigError, Transformer, TransformerConfig


def num_params(config):
    ids = jnp.ones((1, 1), jnp.int32)
    tree = jax.eval_shape(Transformer(config).init, jax.random.key(0), ids, ids)
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def formula(vocab, n, d, ff, h, dk, dv, learned=0):
    """Parameter count by hand: tied table; q, k, v and out per attention; two layers; norms."""
    attention = d * h * dk * 2 + d * h * dv * 2
    feed_forward = d * ff + ff + ff * d + d
    encoder = attention + feed_forward + 2 * 2 * d
    decoder = 2 * attention + feed_forward + 3 * 2 * d
    return vocab * d + n * (encoder + decoder) + 2 * learned * d


SIZES = {  # N, D, F, H, d_k, d_v, as printed in the paper's Table 3
    "base": (6, 512, 2048, 8, 64, 64),
    "A1": (6, 512, 2048, 1, 512, 512),
    "A2": (6, 512, 2048, 4, 128, 128),
    "A3": (6, 512, 2048, 16, 32, 32),
    "A4": (6, 512, 2048, 32, 16, 16),
    "B1": (6, 512, 2048, 8, 16, 64),
    "B2": (6, 512, 2048, 8, 32, 64),
    "C1": (2, 512, 2048, 8, 64, 64),
    "C2": (4, 512, 2048, 8, 64, 64),
    "C3": (8, 512, 2048, 8, 64, 64),
    "C4": (6, 256, 2048, 8, 32, 32),
    "C5": (6, 1024, 2048, 8, 128, 128),
    "C6": (6, 512, 1024, 8, 64, 64),
    "C7": (6, 512, 4096, 8, 64, 64),
    **{row: (6, 512, 2048, 8, 64, 64) for row in ("D1", "D2", "D3", "D4")},
    "E": (6, 512, 2048, 8, 64, 64, 1024),
    "big": (6, 1024, 4096, 16, 64, 64),
}


@pytest.mark.parametrize("row", TABLE3)
def test_table_3_has_the_papers_parameter_counts(row):
    assert num_params(TABLE3[row]) == formula(37_000, *SIZES[row])


def test_base_and_big_configs():
    assert set(SIZES) == set(TABLE3)
    assert num_params(BASE) == 63_045_632 and num_params(BIG) == 214_171_648
    assert BASE == TransformerConfig() and BIG.dropout == 0.3
    assert [TABLE3[row].dropout for row in ("D1", "D2", "base")] == [0.0, 0.2, 0.1]
    assert TABLE3["E"].positions == "learned"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"norm": "past"}, "model.norm='past' is not one of: post, pre"),
        (
            {"activation": "relu3"},
            "model.activation='relu3' is not one of: relu, gelu, silu, reglu",
        ),
        ({"num_heads": 7}, "model.d_model=512 is not a multiple of model.num_heads=7"),
        ({"num_kv_heads": 3}, "model.num_kv_heads=3 must divide"),
        ({"dropout": 1.0}, r"model.dropout=1.0 must be in \[0, 1\)"),
        ({"norm_epsilon": 0.0}, "model.norm_epsilon=0.0 must be above 0"),
        ({"position_offset": -1}, "model.position_offset=-1 must be at least 0"),
        (
            {"position_offset": 2, "positions": "learned"},
            "model.position_offset=2 is for sinusoids: leave it out with model.positions=learned",
        ),
        ({"d_ff": 0}, "model.d_ff=0 must be at least 1"),
        ({"d_k": 0}, "model.d_k=0 must be at least 1"),
        ({"target_vocab_size": 5}, "set model.tying=decoder"),
        ({"d_k": 3, "positions": "rotary"}, "must be even"),
        ({"d_model": 9, "num_heads": 3}, "must be even"),
        ({"relative_num_buckets": 2}, "model.relative_num_buckets=2 must be even and at least 4"),
        ({"relative_num_buckets": 33}, "model.relative_num_buckets=33 must be even and at least 4"),
        (
            {"relative_max_distance": 16},
            "model.relative_max_distance=16 must be more than half of model",
        ),
        (
            {"positions": "t5_bias", "decoder_mixer": "ssru"},
            "decoder_mixer=ssru has no keys to measure distances to: set model.positions",
        ),
    ],
)
def test_invalid_settings_are_rejected(changes, message):
    with pytest.raises(ConfigError, match=message):
        replace(BASE, **changes)
