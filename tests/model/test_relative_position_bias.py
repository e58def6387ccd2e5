"""The relative position bias against the loop that it is defined by."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from model.attention import attention_weights
from model.relative_position_bias import buckets, relative_bias


def bucket(distance, both, count, longest):
    """Of one key: the rule of Mesh TensorFlow, by which T5's tables were made."""
    found, far = 0, -distance
    if both:
        count //= 2
        found = count if far < 0 else 0
        far = abs(far)
    else:
        far = max(far, 0)
    single = count // 2
    if far < single:
        return found + far
    share = math.log(far / single) / math.log(longest / single)
    return found + min(single + int(share * (count - single)), count - 1)


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize(("count", "longest"), [(32, 128), (8, 32), (8, 20)])
def test_buckets_are_the_loops(count, longest, both):
    table = jnp.arange(count, dtype=jnp.float32)[:, None] * jnp.array([[1.0, -2.0]])
    places = jnp.arange(301, dtype=jnp.int32)
    found = np.asarray(relative_bias(table, places, places, longest, both))
    for query, key in [(300, i) for i in range(301)] + [(0, i) for i in range(301)]:
        expected = bucket(key - query, both, count, longest)
        assert found[:, query, key].tolist() == [expected, -2 * expected], (query, key)
    unused = {count // 2} if both else set()  # a key ahead is never at no distance
    assert set(found[0].ravel().tolist()) == set(range(count)) - unused
    assert buckets(count, longest, both).dtype == np.int32


def test_places_may_begin_anywhere():
    table = jnp.asarray(np.random.default_rng(0).normal(size=(8, 3)), jnp.float32)
    places = jnp.arange(40, dtype=jnp.int32)
    whole = relative_bias(table, places, places, 20, False)
    part = relative_bias(table, places[7:9], places, 20, False)
    np.testing.assert_array_equal(part, whole[:, 7:9])


def test_a_bias_is_added_to_the_scores_of_a_query_head():
    rng = np.random.default_rng(0)
    q, k, bias = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((2, 4, 3, 8), (2, 2, 5, 8), (4, 3, 5))
    )
    mask = jnp.ones((1, 3, 5), bool)
    found = attention_weights(*map(jnp.asarray, (q, k)), mask, jnp.asarray(bias))
    for b, h, t in np.ndindex(2, 4, 3):
        e = np.exp(k[b, h // 2] @ q[b, h, t] / np.sqrt(8) + bias[h, t])
        np.testing.assert_allclose(found[b, h, t], e / e.sum(), atol=1e-5)
