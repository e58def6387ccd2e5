"""Pairs in memory and evenly spaced subsets."""

import pytest

from data.pairs import ParallelText, Subset


def test_a_subset_is_evenly_spaced():
    pairs = ParallelText([*"abcdefghij"], [*"ABCDEFGHIJ"])
    subset = Subset(pairs, 4)
    assert [pair.source for pair in subset] == [*"acfh"] and len(subset) == 4
    assert [subset.line(i) for i in range(4)] == [1, 3, 6, 8] and subset.files is None
    file_subset = Subset(ParallelText([*"abcd"], [*"ABCD"], ("a.en", "a.de"), first_line=2), 2)
    assert [file_subset.line(i) for i in range(2)] == [2, 4]
    assert file_subset.files == ("a.en", "a.de")
    assert [*Subset(pairs, 99)] == [*pairs] and len(Subset(ParallelText([], []), 3)) == 0
    with pytest.raises(IndexError):
        subset[4]
