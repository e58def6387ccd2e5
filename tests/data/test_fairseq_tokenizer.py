"""The fairseq tokenizer: BPE merges compared with a plain implementation, and its dictionary."""

import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.batch import EOS, UNK
from data.bpe import BPEMerges, _apply_merges, undo_bpe
from data.errors import DataError
from data.fairseq_tokenizer import DictionaryTokenizer, read_words
from data.vocabulary import Vocabulary, read_tokenizer

SYMBOLS = ["a", "b", "c", "a</w>", "b</w>", "c</w>", "ab", "ba", "aa", "abc</w>", "ba</w>"]
SYMBOLS_OLD = ["a", "b", "c", "</w>", "ab", "a</w>", "ba", "aa", "ba</w>"]
WORDS = ("low@@", "er", "low", "a", "\u07ca@@", "\u07ca", "@@", "<i>")
MERGES = "#version: 0.2\nl o\nlo w\ne r</w>\nlo w</w>\n"


def plain_bpe(word, pairs, old_format):
    """BPE with regular expressions, restarting the merge list after each merge."""
    if len(word) == 1:
        return word
    text = " ".join(word) + (" </w>" if old_format else "</w>")
    changed = True
    while changed:
        for pair in pairs:
            merged = re.sub(rf"(?<!\S){re.escape(' '.join(pair))}(?!\S)", "".join(pair), text)
            if merged != text:
                text = merged
                break
        else:
            changed = False
    text = text.removesuffix(" </w>").removesuffix("</w>")
    return text.replace(" ", "@@ ")


@pytest.mark.parametrize("old_format", [True, False])
@given(data=st.data())
def test_words_are_split_as_by_plain_bpe(old_format, data):
    symbol = st.sampled_from(SYMBOLS_OLD if old_format else SYMBOLS)
    pairs = data.draw(st.lists(st.tuples(symbol, symbol), min_size=1, max_size=12))
    lines = ([] if old_format else ["#version: 0.2"]) + [" ".join(pair) for pair in pairs]
    words = data.draw(st.lists(st.text("abc", min_size=1, max_size=20), min_size=1, max_size=4))
    tokens = BPEMerges("\n".join(lines)).apply(" ".join(words))
    assert tokens == " ".join(plain_bpe(word, pairs, old_format) for word in words)
    assert undo_bpe(tokens) == " ".join(words)


def test_bpe_of_a_long_word_takes_linear_time():
    class CountingDict(dict):
        lookups = 0

        def get(self, pair):
            self.lookups += 1
            return super().get(pair)

    size, symbols = 5000, ["a" * 2**n for n in range(9)]
    pairs = [*zip(symbols, symbols, strict=True), ("a" * 256, "a</w>"), ("b", "a"), ("a", "ba")]
    for word in "a" * size, "ab" * (size // 2), "b" * size:
        ranks = CountingDict({pair: rank for rank, pair in enumerate(pairs)})
        parts = _apply_merges([*word[:-1], f"{word[-1]}</w>"], ranks)
        assert "".join(parts) == f"{word}</w>"
        assert ranks.lookups < 5 * size
    merges = BPEMerges(MERGES)
    assert merges.apply(f"{'low' * 1000} low") == "low@@ " * 999 + "low low"
    assert merges._cached.cache_info().currsize == 1  # long words are not cached


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("lower low", "low@@ er low"),
        ("  low   low \n", "low low"),
        ("lo", "l@@ o"),  # "o</w>" is not the symbol o of "l o"
        ("a\u00a0low\tx", "a@@ \u00a0@@ low@@ \t@@ x"),  # only spaces separate words
        ("", ""),
    ],
)
def test_whitespace_between_words(text, tokens):
    assert BPEMerges(MERGES).apply(text) == tokens


@pytest.fixture(scope="module")
def tokenizer():
    return DictionaryTokenizer.make(WORDS, MERGES)


def test_ids_follow_the_dictionary_and_decode_to_the_text(tokenizer):
    first = UNK + 2  # after Heed's special ids and fairseq's BOS
    (ids,) = tokenizer.encode(["lower  low a \u07ca\u07ca"])
    assert ids == [first, first + 1, first + 2, first + 3, first + 4, first + 5]
    assert tokenizer.vocab_size == first + len(WORDS)
    assert tokenizer.decode([ids]) == ["lower low a \u07ca\u07ca"]
    assert tokenizer.decode([[1, ids[0], 2, 0], []]) == ["low", ""]
    assert tokenizer.pieces(ids)[:2] == ["low@@", "er"]


def test_words_outside_the_dictionary_are_unknown(tokenizer):
    (ids,) = tokenizer.encode(["z low"])
    assert ids == [UNK, UNK + 4]
    assert tokenizer.decode([ids]) == ["<unk> low"]


def test_without_merges_words_are_split_at_spaces():
    tokenizer = DictionaryTokenizer.make(WORDS, None)
    (ids,) = tokenizer.encode(["low@@ er\u2003low </s> <pad> <s> <unk>"])
    assert ids == [5, 6, 7, EOS, UNK, 4, UNK]  # <pad> would be dropped from the text
    assert tokenizer.decode([ids]) == ["lower low <unk> <unk>"]


def test_a_vocabulary_is_saved_and_pickled(tokenizer, tmp_path):
    vocabulary = Vocabulary(tokenizer, DictionaryTokenizer.make(WORDS[::-1], None))
    vocabulary.save(tmp_path)
    for loaded in Vocabulary.load(tmp_path), pickle.loads(pickle.dumps(vocabulary)):
        assert not loaded.shared and loaded.digest() == vocabulary.digest()
        for side, loaded_side in zip(vocabulary, loaded, strict=True):
            assert side.encode(["lower low"]) == loaded_side.encode(["lower low"])
    with pytest.raises(DataError, match="not a Heed vocabulary"):
        read_tokenizer(b'{"format": "heed dictionary 1", "words": 3}')


def test_a_dictionary_has_a_word_and_a_count_per_line():
    assert read_words("low 1\n\n\n") == ["low"]  # trailing blank lines are ignored
    assert read_words("low@@ 12\n# 3\n\u2028 1\n# 4 #fairseq:overwrite\nx 0\n") == [
        *("low@@", "#", "\u2028", "#", "x"),
    ]
    assert DictionaryTokenizer.make(["#", "x", "#"], None).encode(["# x"]) == [[7, 6]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1\nb\n", "line 2: expected a word and a count, got 'b'"),
        ("a one\n", "line 1: expected a word and a count, got 'a one'"),
        ("a 1\n\nb 1\n", "line 2: expected a word and a count, got ''"),
        ("a 1\na 2\n", "line 2: duplicate entry 'a': token ids would be ambiguous"),
        ("<unk> 1\n", "line 1: duplicate entry '<unk>'"),
    ],
)
def test_an_invalid_dictionary_line_is_named(text, message):
    with pytest.raises(DataError, match=message):
        read_words(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#version: 0.2\na b\na b 12\n", "line 3: expected a merge .* got 'a b 12'"),
        ("a\n", "line 1: expected a merge of two symbols"),
        ("#version: 3.1\na b\n", "line 1: #version: 3.1 is not supported, only 0.1 and 0.2"),
    ],
)
def test_an_invalid_merge_line_is_named(text, message):
    with pytest.raises(DataError, match=message):
        DictionaryTokenizer.make(WORDS, text)
