"""Prefixes that end within a word, against enumeration of all outputs that begin with them."""

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
from decode.prefix_completion import _completion, _Table, open_end
from decode.prefix_constraint import completing, pack, sizes
from decode.sample import sample, sampled
from decode.stopping import at_limit
from decode.transforms import forced_prefix
from tests.decode.test_lexical_constraints import holds, phrases_of
from tests.decode.toy_language import EOS, every_output, language, run, wu

# A made-up vocabulary: the end, and pieces that spell each other in several ways.
SURFACES = [b"", b"a", b"ab", b"b", b" "]
VOCAB, LENGTH = len(SURFACES), 5
LOG_PROB, STEP = language(5, 3, VOCAB, LENGTH)
PREFIXES = [b"ab", b" aba", b"b"]
FORCED = [[3], [], [1, 4]]  # before these
LIMITS = [5, 5, 4]


def text_of(tokens):
    return b"".join(SURFACES[t] for t in tokens)


def begins(b, tokens):
    """Whether an output begins with what sentence b's has to begin with."""
    forced = FORCED[b]
    return list(tokens[: len(forced)]) == forced and text_of(tokens[len(forced) :]).startswith(
        PREFIXES[b]
    )


def steering(owed=(0, 0, 0), then=None, limits=LIMITS):
    table = _Table(SURFACES)
    each = [_completion(table, prefix, (0,)) for prefix in PREFIXES]
    packed = pack(each, owed, [None] * 3, 3, VOCAB, sizes(each))
    prefix = np.array([[3, 0], [0, 0], [1, 4]], np.int32)
    lengths = jnp.array([1, 0, 2], jnp.int32)
    then = then or (lambda log_probs, tokens, index: log_probs)
    limits = jnp.asarray(limits, jnp.int32)
    packed = jax.tree.map(jnp.asarray, packed)
    return forced_prefix(jnp.asarray(prefix), lengths, completing(packed, lengths, limits, then))


def outputs(found, b):
    rows = zip(found.tokens[b], found.lengths[b], found.scores[b], strict=True)
    return [(s, tuple(row[:n].tolist())) for row, n, s in rows if np.isfinite(s)]


def expected(b, limits=LIMITS):
    everything = every_output(LOG_PROB, b, VOCAB, limits[b], wu(0.6))
    return [(score, tokens) for score, tokens in everything if begins(b, tokens)]


def test_a_wide_beam_finds_every_output_that_begins_with_the_text():
    found = run(STEP, 3, 512, 0.6, LIMITS, LENGTH, stopping=at_limit(), transform=steering())
    for b in range(3):
        right, ours = expected(b), outputs(found, b)
        assert len(right) > 10 or b == 2
        assert [tokens for _, tokens in ours] == [tokens for _, tokens in right]
        np.testing.assert_allclose([s for s, _ in ours], [s for s, _ in right], rtol=1e-5)


def test_all_methods_begin_with_the_text():
    narrow = dict(stopping=at_limit(), transform=steering(), beam_size=4, length_norm=gnmt(0.6))
    keys = jax.random.split(jax.random.key(3), 3)
    drawn_ = dict(select_token=sampled(keys), length_norm=gnmt(0.6))
    several = partial(sample, width=40)
    filtered = steering(then=transforms.chain(transforms.top_k(1)))
    for search, width, options in (
        (beam_search, 4, narrow),
        (diverse_beam_search, 4, narrow | dict(num_groups=2, diversity_penalty=2.0)),
        (several, 40, drawn_ | dict(transform=steering())),
        (several, 40, drawn_ | dict(transform=filtered)),  # of what is left, not of all
    ):
        found = run(STEP, 3, width, 0.6, LIMITS, LENGTH, search=search, **options)
        for b in range(3):
            ours = [tokens for _, tokens in outputs(found, b)]
            assert ours and all(begins(b, tokens) for tokens in ours)
            assert set(ours) <= {tokens for _, tokens in expected(b)}


def test_room_is_left_for_the_word_and_for_what_is_required():
    tight = [3, 4, 4]  # forced, the fewest tokens that spell the rest, and the end
    found = run(
        STEP, 3, 64, 0.6, tight, LENGTH, stopping=at_limit(), transform=steering(limits=tight)
    )
    for b in range(3):
        assert outputs(found, b)[0][1] == expected(b, tight)[0][1]
    phrases, owed = [[(3,)], [(3,)], []], [0, 1, 0]  # the first is in what is forced
    wanted, limits = phrases_of(phrases), jnp.array(LIMITS, jnp.int32)
    then = enforce(wanted, limits, EOS, lambda log_probs, tokens, index: log_probs)
    options = dict(
        stopping=at_limit(),
        transform=steering(owed, then),
        select_candidates=dynamic_beam_allocation(wanted, 512),
    )
    found = run(STEP, 3, 512, 0.6, LIMITS, LENGTH, **options)
    for b in range(3):
        right = [tokens for _, tokens in expected(b) if holds(tokens, phrases[b])]
        ours = [tokens for _, tokens in outputs(found, b)]
        # Room is counted for a phrase even where it is written on the way.
        assert ours and (set(ours) < set(right) if b == 1 else ours == right)


WORDS = ["der Lehrer liest das Buch", "die Lehre", "ein Lehrling lernt", "Größe", "я читаю книгу"]


def phrase_encodings(completion):
    """All ways through a completion."""

    def onwards(state):
        yield from ((id,) for id in completion.ends[state])
        for id, after in completion.steps[state].items():
            yield from ((id, *rest) for rest in onwards(after))

    return set(onwards(0))


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request):
    return Tokenizer.train(WORDS * 9, 330 if request.param == "bpe" else 298, request.param)


@pytest.mark.parametrize(
    ("prefix", "whole"),
    [
        ("Le", ""),
        ("der Leh", "der"),
        ("die", ""),
        ("der Lehrer Grö", "der Lehrer"),
        ("ein G", "ein"),
    ],
)
def test_a_word_is_completed_in_all_ways_that_spell_it(tokenizer, prefix, whole):
    encode = lambda text: tokenizer.encode([text])[0] if text else []  # noqa: E731
    forced, completion = open_end(prefix, encode(prefix), tokenizer)
    assert forced == encode(whole)
    ours = phrase_encodings(completion)
    assert completion.spelling in ours and [*forced, *completion.spelling] == encode(prefix)
    # By another road: every piece whose text could be part of it, in every order.
    space = tokenizer.surfaces()
    word = prefix.removeprefix(whole).encode()
    targets = {word} if whole else {word, b" " + word}
    parts = [
        i
        for i, s in enumerate(space)
        if s
        and any(
            s in t or s.startswith(t) or any(s.startswith(t[at:]) for at in range(len(t)))
            for t in targets
        )
    ]
    if not whole:  # the space as a byte would be shown, unlike that of a first piece
        parts = [i for i in parts if tokenizer.pieces([i]) != ["<0x20>"]]
    reached, right = [((), b"")], set()
    while reached:
        ids, text = reached.pop()
        for id in parts:
            more = text + space[id]
            if any(more.startswith(t) for t in targets):
                right.add((*ids, id))
            elif any(t.startswith(more) for t in targets):
                reached.append(((*ids, id), more))
    assert ours == right and len(right) > 3
    for ids in itertools.islice(right, 200):
        (text,) = tokenizer.decode([[*forced, *ids]])
        assert text.startswith(prefix) or "\ufffd" in text


def test_what_is_closed_stays_closed(tokenizer):
    encode = lambda text: tokenizer.encode([text])[0]  # noqa: E731
    for prefix in "der Lehrer.", "das Buch!", "":
        assert open_end(prefix, encode(prefix), tokenizer) == (encode(prefix), None)
    ids, after = open_end("der ", encode("der"), tokenizer)
    assert ids == encode("der") and after.needs() == [0] and after.optional
    assert {tokenizer.surfaces()[id][:1] for id in after.ends[0]} == {b" "} and not after.steps[0]
    packed = pack([after], [0], [None], 1, tokenizer.vocab_size, sizes([after]))
    assert packed.ends[0, 0, 0] >> END & 1
    assert open_end("猫 ", encode("猫"), tokenizer) == (encode("猫"), None)
    word = "x" * 200
    ids, after = open_end(word, encode(word), tokenizer)
    assert ids and [*ids, *after.spelling] == encode(word) and len(after.ends) <= 64
    bits = np.ones(tokenizer.vocab_size, bool)
    bits[after.spelling[-1]] = False
    assert after.among(bits).needs()[0] is None or after.spelling[-1] not in sum(after.ends, [])
