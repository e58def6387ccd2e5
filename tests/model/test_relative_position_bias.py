"""Relative position bias compared with the loop that defines it."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from model.attention import attention_weights
from model.relative_position_bias import buckets, relative_bias


def bucket(distance, bidirectional, num_buckets, max_distance):
    """Bucket of one key, by the rule of Mesh TensorFlow and T5."""
    offset, gap = 0, -distance
    if bidirectional:
        num_buckets //= 2
        offset = num_buckets if gap < 0 else 0
        gap = abs(gap)
    else:
        gap = max(gap, 0)
    num_exact = num_buckets // 2
    if gap < num_exact:
        return offset + gap
    fraction = math.log(gap / num_exact) / math.log(max_distance / num_exact)
    return offset + min(num_exact + int(fraction * (num_buckets - num_exact)), num_buckets - 1)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(32, 128), (8, 32), (8, 20)])
def test_buckets_equal_a_plain_loop(num_buckets, max_distance, bidirectional):
    table = jnp.arange(num_buckets, dtype=jnp.float32)[:, None] * jnp.array([[1.0, -2.0]])
    positions = jnp.arange(301, dtype=jnp.int32)
    bias = np.asarray(relative_bias(table, positions, positions, max_distance, bidirectional))
    for query, key in [(300, i) for i in range(301)] + [(0, i) for i in range(301)]:
        expected = bucket(key - query, bidirectional, num_buckets, max_distance)
        assert bias[:, query, key].tolist() == [expected, -2 * expected], (query, key)
    unused = {num_buckets // 2} if bidirectional else set()  # a later key is never at distance 0
    assert set(bias[0].ravel().tolist()) == set(range(num_buckets)) - unused
    assert buckets(num_buckets, max_distance, bidirectional).dtype == np.int32


def test_positions_may_start_anywhere():
    table = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
    positions = jnp.arange(40, dtype=jnp.int32)
    full = relative_bias(table, positions, positions, 20, False)
    rows = relative_bias(table, positions[7:9], positions, 20, False)
    np.testing.assert_array_equal(rows, full[:, 7:9])


def test_the_bias_is_added_to_the_scores_of_each_query_head():
    rng = np.random.default_rng(0)
    q, k, bias = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((2, 4, 3, 8), (2, 2, 5, 8), (4, 3, 5))
    )
    mask = jnp.ones((1, 3, 5), bool)
    weights = attention_weights(*map(jnp.asarray, (q, k)), mask, jnp.asarray(bias))
    for b, h, t in np.ndindex(2, 4, 3):
        e = np.exp(k[b, h // 2] @ q[b, h, t] / np.sqrt(8) + bias[h, t])
        np.testing.assert_allclose(weights[b, h, t], e / e.sum(), atol=1e-5)
