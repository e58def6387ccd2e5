"""Prefix completion within a word, compared with enumeration of all matching outputs."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.batch import EOS as END
from data.tokenizer import Tokenizer
from decode import transforms
from decode.beam import beam_search
from decode.diverse import diverse_beam_search
from decode.length_normalization import gnmt
from decode.lexical_constraints import dynamic_beam_allocation, enforce
from decode.prefix_completion import _completion, _Table, split_open_word
from decode.prefix_constraint import completion_sizes, enforce_completions, pack_completions
from decode.sample import sample, sampled
from decode.stopping import at_limit
from decode.transforms import forced_prefix
from tests.decode.test_lexical_constraints import contains_all, phrases_of
from tests.decode.toy_language import EOS, all_outputs, gnmt_score, language, run

# A toy vocabulary: EOS, and pieces with several encodings of the same text.
SURFACES = [b"", b"a", b"ab", b"b", b" "]
VOCAB, LENGTH = len(SURFACES), 5
LOG_PROB, STEP = language(5, 3, VOCAB, LENGTH)
PREFIXES = [b"ab", b" aba", b"b"]
FORCED = [[3], [], [1, 4]]  # token ids before each prefix
LIMITS = [5, 5, 4]


def text_of(tokens):
    return b"".join(SURFACES[t] for t in tokens)


def starts_with_prefix(b, tokens):
    """Whether an output starts with the required prefix of sentence b."""
    forced = FORCED[b]
    return list(tokens[: len(forced)]) == forced and text_of(tokens[len(forced) :]).startswith(
        PREFIXES[b]
    )


def prefix_transform(reserved=(0, 0, 0), inner=None, limits=LIMITS):
    table = _Table(SURFACES)
    completions = [_completion(table, prefix, (0,)) for prefix in PREFIXES]
    packed = pack_completions(
        completions, reserved, [None] * 3, 3, VOCAB, completion_sizes(completions)
    )
    prefix = np.array([[3, 0], [0, 0], [1, 4]], np.int32)
    lengths = jnp.array([1, 0, 2], jnp.int32)
    inner = inner or (lambda log_probs, tokens, index: log_probs)
    limits = jnp.asarray(limits, jnp.int32)
    packed = jax.tree.map(jnp.asarray, packed)
    return forced_prefix(
        jnp.asarray(prefix), lengths, enforce_completions(packed, lengths, limits, inner)
    )


def outputs(result, b):
    rows = zip(result.tokens[b], result.lengths[b], result.scores[b], strict=True)
    return [(s, tuple(row[:n].tolist())) for row, n, s in rows if np.isfinite(s)]


def expected_outputs(b, limits=LIMITS):
    all_scored = all_outputs(LOG_PROB, b, VOCAB, limits[b], gnmt_score(0.6))
    return [(score, tokens) for score, tokens in all_scored if starts_with_prefix(b, tokens)]


def test_a_wide_beam_finds_every_output_with_the_prefix():
    result = run(
        STEP, 3, 512, 0.6, LIMITS, LENGTH, stopping=at_limit(), transform=prefix_transform()
    )
    for b in range(3):
        expected, actual = expected_outputs(b), outputs(result, b)
        assert len(expected) > 10 or b == 2
        assert [tokens for _, tokens in actual] == [tokens for _, tokens in expected]
        np.testing.assert_allclose([s for s, _ in actual], [s for s, _ in expected], rtol=1e-5)


def test_all_methods_start_with_the_prefix():
    beam_options = dict(
        stopping=at_limit(), transform=prefix_transform(), beam_size=4, length_norm=gnmt(0.6)
    )
    keys = jax.random.split(jax.random.key(3), 3)
    sample_options = dict(select_token=sampled(keys), length_norm=gnmt(0.6))
    sample_many = partial(sample, width=40)
    filtered = prefix_transform(inner=transforms.chain(transforms.top_k(1)))
    for search, width, options in (
        (beam_search, 4, beam_options),
        (diverse_beam_search, 4, beam_options | dict(num_groups=2, diversity_penalty=2.0)),
        (sample_many, 40, sample_options | dict(transform=prefix_transform())),
        # The filter applies to the allowed tokens, not to all.
        (sample_many, 40, sample_options | dict(transform=filtered)),
    ):
        result = run(STEP, 3, width, 0.6, LIMITS, LENGTH, search=search, **options)
        for b in range(3):
            actual = [tokens for _, tokens in outputs(result, b)]
            assert actual and all(starts_with_prefix(b, tokens) for tokens in actual)
            assert set(actual) <= {tokens for _, tokens in expected_outputs(b)}


def test_length_is_reserved_for_the_completion_and_required_phrases():
    tight = [3, 4, 4]  # forced ids, the shortest completion, and EOS
    result = run(
        STEP,
        3,
        64,
        0.6,
        tight,
        LENGTH,
        stopping=at_limit(),
        transform=prefix_transform(limits=tight),
    )
    for b in range(3):
        assert outputs(result, b)[0][1] == expected_outputs(b, tight)[0][1]
    phrases, reserved = [[(3,)], [(3,)], []], [0, 1, 0]  # the first phrase is within the forced ids
    constraints, limits = phrases_of(phrases), jnp.array(LIMITS, jnp.int32)
    inner = enforce(constraints, limits, EOS, lambda log_probs, tokens, index: log_probs)
    options = dict(
        stopping=at_limit(),
        transform=prefix_transform(reserved, inner),
        select_candidates=dynamic_beam_allocation(constraints, 512),
    )
    result = run(STEP, 3, 512, 0.6, LIMITS, LENGTH, **options)
    for b in range(3):
        expected = [tokens for _, tokens in expected_outputs(b) if contains_all(tokens, phrases[b])]
        actual = [tokens for _, tokens in outputs(result, b)]
        # Length is reserved for a phrase even if the completion contains it.
        assert actual and (set(actual) < set(expected) if b == 1 else actual == expected)


WORDS = ["der Lehrer liest das Buch", "die Lehre", "ein Lehrling lernt", "Größe", "я читаю книгу"]


def phrase_encodings(completion):
    """All token sequences of a completion."""

    def paths_from(state):
        yield from ((id,) for id in completion.ends[state])
        for id, target in completion.steps[state].items():
            yield from ((id, *tail) for tail in paths_from(target))

    return set(paths_from(0))


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request):
    return Tokenizer.train(WORDS * 9, 330 if request.param == "bpe" else 298, request.param)


@pytest.mark.parametrize(
    ("prefix", "complete_words"),
    [
        ("Le", ""),
        ("der Leh", "der"),
        ("die", ""),
        ("der Lehrer Grö", "der Lehrer"),
        ("ein G", "ein"),
    ],
)
def test_a_word_is_completed_by_all_encodings(tokenizer, prefix, complete_words):
    encode = lambda text: tokenizer.encode([text])[0] if text else []  # noqa: E731
    forced, completion = split_open_word(prefix, encode(prefix), tokenizer)
    assert forced == encode(complete_words)
    encodings = phrase_encodings(completion)
    assert completion.spelling in encodings and [*forced, *completion.spelling] == encode(prefix)
    # Independently: every piece that could be part of the text, in every order.
    surfaces = tokenizer.surfaces()
    word = prefix.removeprefix(complete_words).encode()
    targets = {word} if complete_words else {word, b" " + word}
    parts = [
        i
        for i, s in enumerate(surfaces)
        if s
        and any(
            s in t or s.startswith(t) or any(s.startswith(t[start:]) for start in range(len(t)))
            for t in targets
        )
    ]
    if not complete_words:  # a byte-fallback space is decoded, an initial "▁" is not
        parts = [i for i in parts if tokenizer.pieces([i]) != ["<0x20>"]]
    pending, expected = [((), b"")], set()
    while pending:
        ids, text = pending.pop()
        for id in parts:
            extended = text + surfaces[id]
            if any(extended.startswith(t) for t in targets):
                expected.add((*ids, id))
            elif any(t.startswith(extended) for t in targets):
                pending.append(((*ids, id), extended))
    assert encodings == expected and len(expected) > 3
    for ids in itertools.islice(expected, 200):
        (text,) = tokenizer.decode([[*forced, *ids]])
        assert text.startswith(prefix) or "\ufffd" in text


def test_complete_words_and_unknown_text_are_not_extended(tokenizer):
    encode = lambda text: tokenizer.encode([text])[0]  # noqa: E731
    for prefix in "der Lehrer.", "das Buch!", "":
        assert split_open_word(prefix, encode(prefix), tokenizer) == (encode(prefix), None)
    ids, completion = split_open_word("der ", encode("der"), tokenizer)
    assert ids == encode("der") and completion.min_tokens() == [0] and completion.optional
    assert {tokenizer.surfaces()[id][:1] for id in completion.ends[0]} == {
        b" "
    } and not completion.steps[0]
    packed = pack_completions(
        [completion], [0], [None], 1, tokenizer.vocab_size, completion_sizes([completion])
    )
    assert packed.ends[0, 0, 0] >> END & 1
    assert split_open_word("猫 ", encode("猫"), tokenizer) == (encode("猫"), None)
    word = "x" * 200
    ids, completion = split_open_word(word, encode(word), tokenizer)
    assert ids and [*ids, *completion.spelling] == encode(word) and len(completion.ends) <= 64
    bits = np.ones(tokenizer.vocab_size, bool)
    bits[completion.spelling[-1]] = False
    assert completion.restrict(bits).min_tokens()[0] is None or completion.spelling[-1] not in sum(
        completion.ends, []
    )
