"""The Marian tokenizer: special tokens, unknown words, saving."""

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


def test_text_is_decoded_and_words_outside_the_vocabulary_are_unknown(tokenizer):
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
        ("</s>>>fr<<the", [EOS, UNK + 1]),  # each segment may start with a code
        (">>fr the book", []),
    ],
)
def test_special_tokens_and_an_initial_language_code_are_recognized(tokenizer, text, special):
    (ids,) = tokenizer.encode([text])
    pieces = tokenizer.pieces(ids)
    special_ids = [i for i, piece in zip(ids, pieces, strict=True) if i <= UNK + 1]
    assert special_ids[: len(special)] == special
    assert (">>fr<<" in pieces) == (UNK + 1 in special)


def test_the_longest_special_token_matches_and_is_not_decoded(model, words):
    table = MarianVocab((*words, "[a]", "[a]b"), special=("[a]", "[a]b"))
    tokenizer = MarianTokenizer.make(model, model, table)
    (ids,) = tokenizer.encode(["the[a]bthe[a]"])
    assert [p for p in tokenizer.pieces(ids) if "[" in p] == ["[a]b", "[a]"]
    assert tokenizer.decode([ids]) == ["the the"]


def test_clean_up_removes_spaces_before_punctuation(model, words):
    table = MarianVocab((*words, "\u2581.", "\u2581's"), clean_up=True)
    tokenizer = MarianTokenizer.make(model, model, table)
    names = tokenizer.pieces(range(tokenizer.vocab_size))
    ids = [names.index(word) for word in ("\u2581.", "\u2581's", "\u2581.")]
    assert tokenizer.decode([ids]) == [".'s."]


def test_sides_with_different_segmentation_may_share_ids(tokenizer, model, words, tmp_path):
    other = MarianTokenizer.make(Tokenizer.train(TEXT, 290).to_bytes(), model, tokenizer.table)
    for target, shared in (
        (other, True),
        (MarianTokenizer.make(model, model, MarianVocab(words)), False),
    ):
        vocabulary = Vocabulary(tokenizer, target)
        vocabulary.save(tmp_path)
        loaded = Vocabulary.load(tmp_path)
        assert loaded.shared == vocabulary.shared == shared
        assert loaded.digest() == vocabulary.digest() == pickle.loads(
            pickle.dumps(vocabulary)
        ).digest()  # fmt: skip
        assert [side.encode(TEXT) for side in loaded] == [side.encode(TEXT) for side in vocabulary]
    assert read_tokenizer(other.to_bytes()).models == other.models


@pytest.mark.parametrize("content", [b"{", b"{}", b'{"format": "other"}', b'{"format": 1, "a": 2}'])
def test_an_invalid_vocabulary_file_is_named(content, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(DataError, match="tokenizer.model: the vocabulary"):
        Vocabulary.load(tmp_path)
