"""Marian's tokenizer: what is special in a text, what is unknown, and how it is kept."""

import pickle

import pytest

from data.batch import BOS, EOS, UNK
from data.errors import DataError
from data.marian_tokenizer import MarianTokenizer, MarianVocab
from data.tokenizer import Tokenizer
from data.vocabulary import Vocabulary, read_tokenizer

TEXT = ["the teacher reads the book", "a student opens the old window", "der Lehrer liest das Buch"]


@pytest.fixture(scope="module")
def model():
    return Tokenizer.train(TEXT * 3, 300).to_bytes()


@pytest.fixture(scope="module")
def words(model):
    pieces = Tokenizer(model).pieces(range(UNK + 1, 300))
    return tuple(piece for piece in pieces if not piece.startswith("<0x") and piece != "z")


@pytest.fixture(scope="module")
def tokenizer(model, words):
    return MarianTokenizer.make(model, model, MarianVocab((">>fr<<", *words)))


def test_text_comes_back_and_what_the_table_lacks_is_unknown(tokenizer):
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    (ids,) = tokenizer.encode(["the book 中"])
    assert UNK in ids and tokenizer.decode([ids]) == ["the book"]
    assert tokenizer.encode([""]) == [[]] and tokenizer.decode([[]]) == [""]


@pytest.mark.parametrize(
    ("text", "special"),
    [
        ("</s>", [EOS]),
        ("the</s>book <unk>a<pad>", [EOS, UNK, BOS]),
        (">>fr<<the book", [UNK + 1]),
        (">>fr<<", [UNK + 1]),
        (">>xx<<the book", [UNK]),
        ("</s>>>fr<<the", [EOS, UNK + 1]),  # each part may begin with a code
        (">>fr the book", []),
    ],
)
def test_special_words_and_a_code_at_the_beginning_are_words(tokenizer, text, special):
    (ids,) = tokenizer.encode([text])
    pieces = tokenizer.pieces(ids)
    found = [i for i, piece in zip(ids, pieces, strict=True) if i <= UNK + 1]
    assert found[: len(special)] == special
    assert (">>fr<<" in pieces) == (UNK + 1 in special)


def test_of_two_special_words_the_longer_is_meant_and_both_are_left_out(model, words):
    table = MarianVocab((*words, "[a]", "[a]b"), special=("[a]", "[a]b"))
    tokenizer = MarianTokenizer.make(model, model, table)
    (ids,) = tokenizer.encode(["the[a]bthe[a]"])
    assert [p for p in tokenizer.pieces(ids) if "[" in p] == ["[a]b", "[a]"]
    assert tokenizer.decode([ids]) == ["the the"]


def test_spaces_are_cleaned_up_where_that_is_asked_for(model, words):
    table = MarianVocab((*words, "\u2581.", "\u2581's"), clean_up=True)
    tokenizer = MarianTokenizer.make(model, model, table)
    names = tokenizer.pieces(range(tokenizer.vocab_size))
    ids = [names.index(word) for word in ("\u2581.", "\u2581's", "\u2581.")]
    assert tokenizer.decode([ids]) == [".'s."]


def test_two_sides_may_cut_text_otherwise_and_share_their_ids(tokenizer, model, words, tmp_path):
    other = MarianTokenizer.make(Tokenizer.train(TEXT, 290).to_bytes(), model, tokenizer.table)
    for target, joint in (
        (other, True),
        (MarianTokenizer.make(model, model, MarianVocab(words)), False),
    ):
        vocabulary = Vocabulary(tokenizer, target)
        vocabulary.save(tmp_path)
        again = Vocabulary.load(tmp_path)
        assert again.shared == vocabulary.shared == joint
        assert again.digest() == vocabulary.digest() == pickle.loads(
            pickle.dumps(vocabulary)
        ).digest()  # fmt: skip
        assert [side.encode(TEXT) for side in again] == [side.encode(TEXT) for side in vocabulary]
    assert read_tokenizer(other.to_bytes()).models == other.models


@pytest.mark.parametrize("content", [b"{", b"{}", b'{"format": "other"}', b'{"format": 1, "a": 2}'])
def test_what_is_no_vocabulary_is_told_with_its_file(content, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(DataError, match="tokenizer.model: the vocabulary"):
        Vocabulary.load(tmp_path)
