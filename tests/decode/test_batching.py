"""Every sentence in one batch that holds it, in few shapes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from decode.batching import batches, fitting_shape, precompiled_shapes


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 256), max_size=400),
    tokens=st.sampled_from([1, 100, 1536, 8192]),
    devices=st.sampled_from([1, 3, 8]),
    longest=st.sampled_from([None, 257]),
)
def test_batches_hold_every_sentence_once_and_have_few_shapes(lengths, tokens, devices, longest):
    found = list(batches(lengths, tokens, devices, longest))
    assert sorted(row for rows, _ in found for row in rows) == list(range(len(lengths)))
    for rows, (count, source) in found:
        assert 0 < len(rows) <= count and count % devices == 0
        assert all(lengths[row] < source <= (longest or 512) for row in rows)  # EOS fits as well
        assert count // devices * source <= max(tokens, source)
    shapes = {shape for _, shape in found}
    assert len(shapes) == len({source for _, source in shapes}) <= 8
    order = [lengths[row] for rows, _ in found for row in rows]
    assert order == sorted(order, reverse=True)


def test_a_typed_sentence_is_a_row_alone():
    assert [shape for _, shape in batches([5], 1536)] == [(1, 16)]
    assert [shape for _, shape in batches([40] * 3, 1536)] == [(4, 48)]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    lengths=st.lists(st.integers(1, 300), max_size=200),
    most=st.sampled_from([1, 31, 32, 256]),
    tokens=st.sampled_from([1, 100, 1536, 8192]),
    devices=st.sampled_from([1, 3]),
    longest=st.sampled_from([None, 301]),
)
def test_what_fits_a_ladder_is_searched_for_in_its_shapes(lengths, most, tokens, devices, longest):
    shapes = precompiled_shapes(most, tokens, devices, longest)
    assert len(shapes) == len(set(shapes)) <= 20
    assert max(source for _, source in shapes) > most
    found = list(batches(lengths, tokens, devices, longest, shapes))
    assert sorted(row for rows, _ in found for row in rows) == list(range(len(lengths)))
    for rows, shape in found:
        own = [lengths[row] for row in rows]
        assert 0 < len(rows) <= shape[0] and max(own) < shape[1]
        if max(own) <= most:
            assert shape in shapes
        if shape in shapes:  # the smallest that would have done
            assert not any(r >= len(rows) and s > max(own) and (r, s) < shape for r, s in shapes
                           if s <= shape[1])  # fmt: skip
    assert fitting_shape(shapes, 1, 10_000) is None


def test_a_ladder_is_short():
    assert precompiled_shapes(256, 1536) == [
        *((rows, 32) for rows in (1, 8, 32, 48)),
        *((rows, 64) for rows in (1, 8, 24)),
        *((rows, 128) for rows in (1, 8, 12)),
        *((rows, 272) for rows in (1, 5)),
    ]
