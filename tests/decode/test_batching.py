"""Batching: every sentence is in exactly one batch, with few distinct shapes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from decode.batching import batches, fitting_shape, precompiled_shapes


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 256), max_size=400),
    tokens=st.sampled_from([1, 100, 1536, 8192]),
    devices=st.sampled_from([1, 3, 8]),
    max_length=st.sampled_from([None, 257]),
)
def test_batches_hold_every_sentence_once_and_have_few_shapes(lengths, tokens, devices, max_length):
    result = list(batches(lengths, tokens, devices, max_length))
    assert sorted(row for rows, _ in result for row in rows) == list(range(len(lengths)))
    for rows, (count, source) in result:
        assert 0 < len(rows) <= count and count % devices == 0
        assert all(lengths[row] < source <= (max_length or 512) for row in rows)  # with EOS
        assert count // devices * source <= max(tokens, source)
    shapes = {shape for _, shape in result}
    assert len(shapes) == len({source for _, source in shapes}) <= 8
    order = [lengths[row] for rows, _ in result for row in rows]
    assert order == sorted(order, reverse=True)


def test_small_requests_use_small_batches():
    assert [shape for _, shape in batches([5], 1536)] == [(1, 16)]
    assert [shape for _, shape in batches([40] * 3, 1536)] == [(4, 48)]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 300), max_size=200),
    max_tokens=st.sampled_from([1, 31, 32, 256]),
    tokens=st.sampled_from([1, 100, 1536, 8192]),
    devices=st.sampled_from([1, 3]),
    max_length=st.sampled_from([None, 301]),
)
def test_batches_use_the_smallest_precompiled_shape(
    lengths, max_tokens, tokens, devices, max_length
):
    shapes = precompiled_shapes(max_tokens, tokens, devices, max_length)
    assert len(shapes) == len(set(shapes)) <= 20
    assert max(source for _, source in shapes) > max_tokens
    result = list(batches(lengths, tokens, devices, max_length, shapes))
    assert sorted(row for rows, _ in result for row in rows) == list(range(len(lengths)))
    for rows, shape in result:
        row_lengths = [lengths[row] for row in rows]
        assert 0 < len(rows) <= shape[0] and max(row_lengths) < shape[1]
        if max(row_lengths) <= max_tokens:
            assert shape in shapes
        if shape in shapes:  # the smallest shape that fits
            assert not any(
                r >= len(rows) and s > max(row_lengths) and (r, s) < shape
                for r, s in shapes
                if s <= shape[1]
            )
    assert fitting_shape(shapes, 1, 10_000) is None


def test_precompiled_shapes_are_few():
    assert precompiled_shapes(256, 1536) == [
        *((rows, 32) for rows in (1, 8, 32, 48)),
        *((rows, 64) for rows in (1, 8, 24)),
        *((rows, 128) for rows in (1, 8, 12)),
        *((rows, 272) for rows in (1, 5)),
    ]
