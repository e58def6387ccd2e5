"""Every sentence in one batch that holds it, in few shapes."""

from hypothesis import given, settings
from hypothesis import strategies as st

from decode.batching import batches


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
