"""What is asked of a sentence, and what is refused with the line that asked for it."""

import numpy as np
import pytest

from data.batch import EOS, UNK
from data.tokenizer import Tokenizer
from data.vocabulary import Vocabulary
from decode.inputs import (
    LongInputPolicy,
    make_search_batch,
    padded_sizes,
    phrase_encodings,
    segment_inputs,
)
from decode.options import InputError, SearchOptions


@pytest.fixture(scope="module")
def vocabulary():
    tokenizer = Tokenizer.train(["the teacher reads a book", "it rains on a green monday"] * 9, 290)
    return Vocabulary(tokenizer, tokenizer)


class Poor(Tokenizer):
    """Knows no x, as an alphabet learned elsewhere may not."""

    def encode(self, sentences):
        return [[UNK] if "x" in text else super(Poor, self).encode([text])[0] for text in sentences]


class Counting(Tokenizer):
    """Knows how many letters it was given."""

    letters = 0

    def encode(self, sentences):
        self.letters += sum(map(len, sentences))
        return super().encode(sentences)


def pieces(
    vocabulary, sentences, prefixes=None, required=None, policy="split:256", most=None, **options
):
    return list(
        segment_inputs(
            sentences,
            prefixes or [""] * len(sentences),
            required or [[]] * len(sentences),
            vocabulary=vocabulary,
            policy=LongInputPolicy(policy, most),
            options=SearchOptions(**options),
            longest=None,
        )
    )


def test_a_request_holds_every_piece_and_what_is_asked_of_it(vocabulary):
    sentences = ["a book", "", "it rains", "the teacher reads a book " * 12]
    encode = lambda text: vocabulary.target.encode([text])[0]  # noqa: E731
    required = [["green"], [], ["monday", "a book", "monday", " a book", "a book "], []]
    there = pieces(vocabulary, sentences, ["", "", "the", "on"], required, "split:16")
    assert [piece.sentence for piece in there[:3]] == [0, 2, 3] and len(there) > 4
    prefixes = [[*p.prefix, *(p.completion.spelling if p.completion else ())] for p in there[:4]]
    assert prefixes == [[], encode("the"), encode("on"), []]
    needs = padded_sizes(there)
    vocab = vocabulary.target.vocab_size
    asked = make_search_batch(there, 32, 32, needs, vocab)
    assert [leaf.shape[0] for leaf in asked[:-2]] == [32] * 6 and asked.allowed is None
    assert asked.completions.begins.tolist()[:3] == [8, 0, 0] and needs.completion.states == 8
    assert asked.src.shape == (32, 32) and asked.phrases.shape == (32, 2, needs.phrase)
    for row, piece in enumerate(there):
        ids = asked.src[row].tolist()
        assert ids[: ids.index(EOS)] == piece.ids
        assert [[i for i in p if i] for p in asked.phrases[row].tolist() if any(p)] == piece.phrases
        assert [i for i in asked.prefix[row].tolist() if i] == piece.prefix
    assert there[1].phrases == [encode("monday"), encode("a book")]  # twice is once
    assert asked.sentence_ids[: len(there)].tolist() == [
        [piece.sentence, piece.part] for piece in there
    ]
    assert [piece.part for piece in there] == [0, 0, *range(len(there) - 2)]
    (blank,) = pieces(vocabulary, ["a book"], ["the  "])
    assert blank.prefix == encode("the")  # or no word could follow
    assert (asked.sentence_ids[len(there) :] == -1).all() and (
        asked.limits[len(there) :] == 1
    ).all()
    nothing = make_search_batch(pieces(vocabulary, ["a"]), 1, 16, padded_sizes([]), vocab)
    assert nothing.completions is None
    assert nothing.phrases.size == nothing.prefix.size == 0
    assert nothing.src.dtype == np.int32 and nothing.seeds.dtype == np.uint32


def test_a_phrase_that_the_prefix_holds_needs_no_room(vocabulary):
    encode = lambda text: vocabulary.target.encode([text])[0]  # noqa: E731
    asked = ["a book"], ["it rains on"], [["rains"]]
    limit = len(encode("it rains on")) + 1
    assert pieces(vocabulary, *asked, max_length=limit)[0].limit == limit
    with pytest.raises(InputError, match=f"have {limit - 1} tokens, but the length limit is"):
        pieces(vocabulary, *asked, max_length=limit - 1)
    with pytest.raises(InputError, match="have"):
        pieces(vocabulary, *asked[:2], [["green"]], max_length=limit)


def test_a_ban_of_punctuation_is_of_it_after_words_too():
    tokenizer = Tokenizer.train(["a cat, a dog, and a bird."] * 9, 290)
    spell = lambda text: phrase_encodings("--forbid:", text, tokenizer)  # noqa: E731
    (word,) = spell("cat")
    assert spell(" cat ") == [word]
    assert word == tokenizer.encode(["cat"])[0]
    alone, after = spell(",")
    assert alone == tokenizer.encode([","])[0]
    written = tokenizer.encode(["a dog, a cat"])[0]
    assert any(written[at : at + len(after)] == after for at in range(len(written)))
    assert not any(written[at : at + len(alone)] == alone for at in range(len(written)))


def test_equal_sentences_get_equal_seeds_whatever_blanks_surround_them(vocabulary):
    one, same, other = pieces(vocabulary, ["a book", " a book \r", "a green book"])
    assert one.seed == same.seed != other.seed


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (dict(prefixes=["", "green " * 9], max_length=9), "line 2: its prefix has 36 tokens, but"),
        (dict(required=[["green " * 9], []], max_length=9), "line 1: its required phrases"),
        (dict(required=[["a x"], []]), "line 1: the required phrase 'a x' cannot be"),
        (dict(required=[["", "a"], []]), "the required phrase '' cannot be spelled"),
        (dict(required=[[" ", "a"], []]), "the required phrase ' ' cannot be spelled"),
        (dict(min_length=60), "line 1: --min_length=60 is more than its limit, 5[0-9]: lower"),
        (dict(policy="split:00"), "--long_input=split:00 is not"),
        (dict(policy="split"), "--long_input=split is not split:TOKENS or error:TOKENS"),
        (dict(policy="refuse:"), "--long_input=refuse: is not"),
        (dict(prefixes=["", "x"]), "line 2: the prefix 'x' cannot be spelled"),
        (
            dict(required=[[], ["a"]], policy="split:9", most=30),
            "line 2 would be translated in .* is not known: raise --long_input=split:9, or split",
        ),
        (
            dict(required=[[], ["a"]], most=9),
            r"is not known: shorten it \(the model has positions for 9 and the end\), or split",
        ),
        (
            dict(required=[[], ["a"]], method="greedy"),
            r"required phrases \(--require, --require_file\) need --method=beam",
        ),
        (dict(required=[[], ["a"]], num_groups=2), "with --num_groups=1"),
        (
            dict(required=[["a green book"], []], banned="green"),
            "line 1: 'a green book' is required",
        ),
        (
            dict(prefixes=["", "a green"], banned="green"),
            "line 2: 'a green' is the prefix, but --forbid=",
        ),
        (
            dict(prefixes=["a book a book", ""], no_repeat_ngrams=2),
            "line 1: 'a book a book' is the prefix, but it repeats what --no_repeat_ngrams=2",
        ),
        (
            dict(required=[["a book a book"], []], no_repeat_ngrams=2),
            "line 1: 'a book a book' is required, but it repeats",
        ),
        (dict(policy="error:1"), r"line 1 has \d tokens, more than --long_input=error:1"),
        (
            dict(policy="error:20", most=9),
            r"line 2 has \d+ tokens, more than the 9 that the model has positions for",
        ),
        (dict(policy="split:1"), "line 1: --long_input is too small for the single character"),
        (dict(policy="split:no"), "--long_input=split:no is not"),
    ],
)
def test_what_cannot_be_is_refused_by_line(vocabulary, asked, message):
    poor = Poor(vocabulary.source.to_bytes())
    if "banned" in asked:
        asked = asked | {"banned": tuple(map(tuple, poor.encode([asked["banned"]])))}
    with pytest.raises(InputError, match=message):
        pieces(Vocabulary(poor, poor), ["a book", "it rains on a green monday"], **asked)


@pytest.mark.parametrize("letter", ["the", "the ", "on. "])
def test_cutting_a_long_line_takes_as_long_for_each_of_its_letters(vocabulary, letter):
    found = []
    for count in 500, 8000:
        both = Counting(vocabulary.source.to_bytes())
        line = letter * count
        cuts = pieces(Vocabulary(both, both), [line], policy="split:16")
        assert max(len(piece.ids) for piece in cuts) <= 16
        text = "".join(piece.separator + both.decode([piece.ids])[0] for piece in cuts)
        assert text.strip() == line.strip()
        found.append(both.letters / len(line))
    assert found[1] < 1.1 * found[0]
