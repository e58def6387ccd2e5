"""Inputs of a search: segments, prefixes, required phrases, and errors that name the line."""

import numpy as np
import pytest

from data.batch import EOS, UNK
from data.tokenizer import Tokenizer
from data.vocabulary import Vocabulary
from decode.inputs import LongInputPolicy, segment_inputs
from decode.options import InputError, SearchOptions
from decode.phrase_encoding import phrase_encodings
from decode.search_batch import make_search_batch, padded_sizes


@pytest.fixture(scope="module")
def vocabulary():
    tokenizer = Tokenizer.train(["the teacher reads a book", "it rains on a green monday"] * 9, 290)
    return Vocabulary(tokenizer, tokenizer)


class TokenizerWithoutX(Tokenizer):
    """A tokenizer without the letter x in its alphabet."""

    def encode(self, sentences):
        return [
            [UNK] if "x" in text else super(TokenizerWithoutX, self).encode([text])[0]
            for text in sentences
        ]


class CountingTokenizer(Tokenizer):
    """Counts the characters that it encodes."""

    characters = 0

    def encode(self, sentences):
        self.characters += sum(map(len, sentences))
        return super().encode(sentences)


def segments(
    vocabulary,
    sentences,
    prefixes=None,
    required=None,
    policy="split:256",
    max_positions=None,
    **options,
):
    return list(
        segment_inputs(
            sentences,
            prefixes or [""] * len(sentences),
            required or [[]] * len(sentences),
            vocabulary=vocabulary,
            policy=LongInputPolicy(policy, max_positions),
            options=SearchOptions(**options),
            longest=None,
        )
    )


def test_a_search_batch_has_every_segment_and_its_constraints(vocabulary):
    sentences = ["a book", "", "it rains", "the teacher reads a book " * 12]
    encode = lambda text: vocabulary.target.encode([text])[0]  # noqa: E731
    required = [["green"], [], ["monday", "a book", "monday", " a book", "a book "], []]
    inputs = segments(vocabulary, sentences, ["", "", "the", "on"], required, "split:16")
    assert [segment.sentence for segment in inputs[:3]] == [0, 2, 3] and len(inputs) > 4
    prefixes = [[*p.prefix, *(p.completion.spelling if p.completion else ())] for p in inputs[:4]]
    assert prefixes == [[], encode("the"), encode("on"), []]
    padded = padded_sizes(inputs)
    vocab = vocabulary.target.vocab_size
    batch = make_search_batch(inputs, 32, 32, padded, vocab)
    assert [leaf.shape[0] for leaf in batch[:-2]] == [32] * 6 and batch.allowed is None
    assert batch.completions.start_state.tolist()[:3] == [8, 0, 0] and padded.completion.states == 8
    assert batch.src.shape == (32, 32) and batch.phrases.shape == (32, 2, padded.phrase)
    for row, segment in enumerate(inputs):
        ids = batch.src[row].tolist()
        assert ids[: ids.index(EOS)] == segment.ids
        assert [
            [i for i in p if i] for p in batch.phrases[row].tolist() if any(p)
        ] == segment.phrases
        assert [i for i in batch.prefix[row].tolist() if i] == segment.prefix
    assert inputs[1].phrases == [encode("monday"), encode("a book")]  # without duplicates
    assert batch.sentence_ids[: len(inputs)].tolist() == [
        [segment.sentence, segment.index] for segment in inputs
    ]
    assert [segment.index for segment in inputs] == [0, 0, *range(len(inputs) - 2)]
    (blank,) = segments(vocabulary, ["a book"], ["the  "])
    assert blank.prefix == encode("the")  # a trailing space would prevent a word boundary
    assert (batch.sentence_ids[len(inputs) :] == -1).all() and (
        batch.limits[len(inputs) :] == 1
    ).all()
    empty = make_search_batch(segments(vocabulary, ["a"]), 1, 16, padded_sizes([]), vocab)
    assert empty.completions is None
    assert empty.phrases.size == empty.prefix.size == 0
    assert empty.src.dtype == np.int32 and empty.seeds.dtype == np.uint32


def test_a_phrase_within_the_prefix_takes_no_length(vocabulary):
    encode = lambda text: vocabulary.target.encode([text])[0]  # noqa: E731
    request = ["a book"], ["it rains on"], [["rains"]]
    limit = len(encode("it rains on")) + 1
    assert segments(vocabulary, *request, max_length=limit)[0].limit == limit
    with pytest.raises(InputError, match=f"have {limit - 1} tokens, but the length limit is"):
        segments(vocabulary, *request, max_length=limit - 1)
    with pytest.raises(InputError, match="have"):
        segments(vocabulary, *request[:2], [["green"]], max_length=limit)


def test_forbidden_punctuation_is_encoded_with_and_without_a_space():
    tokenizer = Tokenizer.train(["a cat, a dog, and a bird."] * 9, 290)
    encode_all = lambda text: phrase_encodings("--forbid:", text, tokenizer)  # noqa: E731
    (word,) = encode_all("cat")
    assert encode_all(" cat ") == [word]
    assert word == tokenizer.encode(["cat"])[0]
    at_start, after_word = encode_all(",")
    assert at_start == tokenizer.encode([","])[0]
    text_ids = tokenizer.encode(["a dog, a cat"])[0]
    assert any(text_ids[i : i + len(after_word)] == after_word for i in range(len(text_ids)))
    assert not any(text_ids[i : i + len(at_start)] == at_start for i in range(len(text_ids)))


def test_seeds_do_not_depend_on_surrounding_whitespace(vocabulary):
    first, same, other = segments(vocabulary, ["a book", " a book \r", "a green book"])
    assert first.seed == same.seed != other.seed


@pytest.mark.parametrize(
    ("arguments", "message"),
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
            dict(required=[[], ["a"]], policy="split:9", max_positions=30),
            "line 2 would be translated in .* is ambiguous: raise --long_input=split:9, or split",
        ),
        (
            dict(required=[[], ["a"]], max_positions=9),
            r"is ambiguous: shorten it \(the model has 9 positions without EOS\), or split",
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
            "line 1: 'a book a book' is the prefix, but --no_repeat_ngrams=2",
        ),
        (
            dict(required=[["a book a book"], []], no_repeat_ngrams=2),
            "line 1: 'a book a book' is required, but --no_repeat_ngrams=2 forbids",
        ),
        (dict(policy="error:1"), r"line 1 has \d tokens, more than --long_input=error:1"),
        (
            dict(policy="error:20", max_positions=9),
            r"line 2 has \d+ tokens, more than the model's 9 positions",
        ),
        (dict(policy="split:1"), "line 1: --long_input is too small for the single character"),
        (dict(policy="split:no"), "--long_input=split:no is not"),
    ],
)
def test_invalid_requests_are_rejected_with_their_line(vocabulary, arguments, message):
    tokenizer = TokenizerWithoutX(vocabulary.source.to_bytes())
    if "banned" in arguments:
        arguments = arguments | {
            "banned": tuple(map(tuple, tokenizer.encode([arguments["banned"]])))
        }
    with pytest.raises(InputError, match=message):
        segments(
            Vocabulary(tokenizer, tokenizer), ["a book", "it rains on a green monday"], **arguments
        )


@pytest.mark.parametrize("word", ["the", "the ", "on. "])
def test_segmentation_time_is_linear_in_the_line_length(vocabulary, word):
    costs = []
    for count in 500, 8000:
        tokenizer = CountingTokenizer(vocabulary.source.to_bytes())
        line = word * count
        parts = segments(Vocabulary(tokenizer, tokenizer), [line], policy="split:16")
        assert max(len(segment.ids) for segment in parts) <= 16
        text = "".join(segment.separator + tokenizer.decode([segment.ids])[0] for segment in parts)
        assert text.strip() == line.strip()
        costs.append(tokenizer.characters / len(line))
    assert costs[1] < 1.1 * costs[0]
