"""Words of a dictionary, cut by merges: as the paper of merges has it, plainly."""

import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.batch import EOS, UNK
from data.bpe import BPEMerges, _merged, joined
from data.errors import DataError
from data.fairseq_tokenizer import DictionaryTokenizer, read_words
from data.vocabulary import Vocabulary, read_tokenizer

ENDED = ["a", "b", "c", "a</w>", "b</w>", "c</w>", "ab", "ba", "aa", "abc</w>", "ba</w>"]
APART = ["a", "b", "c", "</w>", "ab", "a</w>", "ba", "aa", "ba</w>"]
WORDS = ("low@@", "er", "low", "a", "\u07ca@@", "\u07ca", "@@", "<i>")
MERGES = "#version: 0.2\nl o\nlo w\ne r</w>\nlo w</w>\n"


def plain(word, pairs, apart):
    """The list from its beginning again after each merge, by regular expressions."""
    if len(word) == 1:
        return word
    text = " ".join(word) + (" </w>" if apart else "</w>")
    going = True
    while going:
        for pair in pairs:
            found = re.sub(rf"(?<!\S){re.escape(' '.join(pair))}(?!\S)", "".join(pair), text)
            if found != text:
                text = found
                break
        else:
            going = False
    text = text.removesuffix(" </w>").removesuffix("</w>")
    return text.replace(" ", "@@ ")


@pytest.mark.parametrize("apart", [True, False])
@given(data=st.data())
def test_words_are_cut_as_the_list_says(apart, data):
    symbol = st.sampled_from(APART if apart else ENDED)
    pairs = data.draw(st.lists(st.tuples(symbol, symbol), min_size=1, max_size=12))
    lines = ([] if apart else ["#version: 0.2"]) + [" ".join(pair) for pair in pairs]
    words = data.draw(st.lists(st.text("abc", min_size=1, max_size=20), min_size=1, max_size=4))
    cut = BPEMerges("\n".join(lines)).apply(" ".join(words))
    assert cut == " ".join(plain(word, pairs, apart) for word in words)
    assert joined(cut) == " ".join(words)


def test_a_long_word_takes_a_few_looks_a_letter():
    class Counting(dict):
        looks = 0

        def get(self, pair):
            self.looks += 1
            return super().get(pair)

    size, symbols = 5000, ["a" * 2**n for n in range(9)]
    pairs = [*zip(symbols, symbols, strict=True), ("a" * 256, "a</w>"), ("b", "a"), ("a", "ba")]
    for word in "a" * size, "ab" * (size // 2), "b" * size:
        ranks = Counting({pair: rank for rank, pair in enumerate(pairs)})
        parts = _merged([*word[:-1], f"{word[-1]}</w>"], ranks)
        assert "".join(parts) == f"{word}</w>"
        assert ranks.looks < 5 * size
    merges = BPEMerges(MERGES)
    assert merges.apply(f"{'low' * 1000} low") == "low@@ " * 999 + "low low"
    assert merges._cached.cache_info().currsize == 1  # a cache of long words has no bound in bytes


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("lower low", "low@@ er low"),
        ("  low   low \n", "low low"),
        ("lo", "l@@ o"),  # an o that ends a word is another than that of "l o"
        ("a\u00a0low\tx", "a@@ \u00a0@@ low@@ \t@@ x"),  # only spaces part words
        ("", ""),
    ],
)
def test_text_between_words(text, cut):
    assert BPEMerges(MERGES).apply(text) == cut


@pytest.fixture(scope="module")
def tokenizer():
    return DictionaryTokenizer.make(WORDS, MERGES)


def test_ids_are_those_of_the_dictionary_and_text_comes_back(tokenizer):
    first = UNK + 2  # after Heed's own and their beginning
    (ids,) = tokenizer.encode(["lower  low a \u07ca\u07ca"])
    assert ids == [first, first + 1, first + 2, first + 3, first + 4, first + 5]
    assert tokenizer.vocab_size == first + len(WORDS)
    assert tokenizer.decode([ids]) == ["lower low a \u07ca\u07ca"]
    assert tokenizer.decode([[1, ids[0], 2, 0], []]) == ["low", ""]
    assert tokenizer.pieces(ids)[:2] == ["low@@", "er"]


def test_what_the_dictionary_lacks_is_unknown_and_shows_so(tokenizer):
    (ids,) = tokenizer.encode(["z low"])
    assert ids == [UNK, UNK + 4]
    assert tokenizer.decode([ids]) == ["<unk> low"]


def test_without_merges_words_are_those_between_spaces():
    tokenizer = DictionaryTokenizer.make(WORDS, None)
    (ids,) = tokenizer.encode(["low@@ er\u2003low </s> <pad> <s> <unk>"])
    assert ids == [5, 6, 7, EOS, UNK, 4, UNK]  # a padding would be none of the text any more
    assert tokenizer.decode([ids]) == ["lower low <unk> <unk>"]


def test_it_is_kept_as_bytes(tokenizer, tmp_path):
    both = Vocabulary(tokenizer, DictionaryTokenizer.make(WORDS[::-1], None))
    both.save(tmp_path)
    for again in Vocabulary.load(tmp_path), pickle.loads(pickle.dumps(both)):
        assert not again.shared and again.digest() == both.digest()
        for side, same in zip(both, again, strict=True):
            assert side.encode(["lower low"]) == same.encode(["lower low"])
    with pytest.raises(DataError, match="not a vocabulary of Heed's"):
        read_tokenizer(b'{"format": "heed dictionary 1", "words": 3}')


def test_a_dictionary_has_a_word_and_a_count_a_line():
    assert read_words("low 1\n\n\n") == ["low"]  # blank lines at the end say nothing
    assert read_words("low@@ 12\n# 3\n\u2028 1\n# 4 #fairseq:overwrite\nx 0\n") == [
        *("low@@", "#", "\u2028", "#", "x"),
    ]
    assert DictionaryTokenizer.make(["#", "x", "#"], None).encode(["# x"]) == [[7, 6]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1\nb\n", "line 2: it needs a word and a count, but is 'b'"),
        ("a one\n", "line 1: it needs a word and a count, but is 'a one'"),
        ("a 1\n\nb 1\n", "line 2: it needs a word and a count, but is ''"),
        ("a 1\na 2\n", "line 2: 'a' is there already, so that ids are not sure"),
        ("<unk> 1\n", "line 1: '<unk>' is there already"),
    ],
)
def test_a_line_that_is_none_is_named(text, message):
    with pytest.raises(DataError, match=message):
        read_words(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#version: 0.2\na b\na b 12\n", "line 3: a merge is of two symbols, .* is 'a b 12'"),
        ("a\n", "line 1: a merge is of two symbols"),
        ("#version: 3.1\na b\n", "line 1: #version: 3.1 is not supported, only 0.1 and 0.2"),
    ],
)
def test_a_line_that_is_no_merge_is_named(text, message):
    with pytest.raises(DataError, match=message):
        DictionaryTokenizer.make(WORDS, text)
