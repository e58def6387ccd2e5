"""Outputs of a shortlist's words alone: against a search that bans all others."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from data.batch import EOS, UNK
from data.errors import DataError
from decode import shortlist, transforms
from decode.options import InputError, SearchOptions
from decode.shortlist import NAME, Shortlist
from decode.translate import Translator
from model import Transformer
from tests.decode.tiny_model import CONFIG, same, sentences, translator

SIZE = CONFIG.vocab_size


@pytest.fixture(scope="module")
def words():
    """A few random words of each source word, and four that all outputs may have."""
    random = np.random.default_rng(0)
    counts = random.integers(0, 12, SIZE)
    ids = random.integers(UNK + 1, SIZE, counts.sum()).astype(np.int32)
    always = np.array([7, 30, 31, 299], np.int32)
    return Shortlist(np.cumsum([0, *counts]), ids, always, SIZE)


def members(words, source):
    found = {EOS, UNK, *words.always.tolist()}
    for id in source:
        found |= set(words.ids[words.starts[id] : words.starts[id + 1]].tolist())
    return found


def test_bits_are_the_words_and_nothing_else_may_be_said(words):
    sources = [[5, 9, 9], [], [299, 4]]
    bits = np.stack([words.allowed(source) for source in sources])
    random = np.random.default_rng(1)
    log_probs = jnp.asarray(random.normal(size=(3, 2, 384)), jnp.float32)  # more than there are ids
    found = transforms.restrict_to(jnp.asarray(bits))(log_probs, None, None)
    for row, source in enumerate(sources):
        there = members(words, source)
        for id in range(384):
            expected = log_probs[row, :, id] if id in there else -np.inf
            np.testing.assert_array_equal(found[row, :, id], expected)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"beam_size": 2}, {"method": "greedy"}], ids=str)
def test_the_search_is_one_that_bans_all_others(params, vocabulary, words, options):
    text = sentences(9)
    plain = translator(params, vocabulary, **options)
    limited = Translator(
        Transformer(CONFIG), params, vocabulary, options=plain.options, shortlist=words
    )
    found = limited.hypotheses(text)
    for line, own in list(zip(text, found, strict=True))[::4]:  # each ban compiles a search
        (ids,) = vocabulary.source.encode([line])
        there = members(words, [*ids, EOS])
        banned = tuple((id,) for id in range(UNK + 1, SIZE) if id not in there)
        alone = plain.with_options(replace(plain.options, banned=banned)).hypotheses([line])
        same([own], alone)
    free = plain.hypotheses(text)
    assert [f[0].text for f in found] != [f[0].text for f in free]  # or it changed nothing


@pytest.mark.slow
def test_what_is_asked_for_may_be_said(params, vocabulary, words):
    few = SearchOptions(max_length_offset=6, max_length=16, beam_size=3)
    limited = Translator(Transformer(CONFIG), params, vocabulary, options=few, shortlist=words)
    ((best, *_),) = limited.hypotheses(["the book"], required=[["green monday"]])
    assert "green monday" in best.text
    (ids,) = vocabulary.source.encode(["the book"])
    (wanted,) = vocabulary.target.encode(["green monday"])
    there = members(words, [*ids, EOS]) | set(wanted)  # also before it is the last moment for it
    banned = tuple((id,) for id in range(UNK + 1, SIZE) if id not in there)
    plain = translator(params, vocabulary, beam_size=3, banned=banned)
    same([[best]], [plain.hypotheses(["the book"], required=[["green monday"]])[0][:1]])
    ((best, *_),) = limited.hypotheses(["the book"], prefixes=["on a monday"])
    assert best.text.startswith("on a monday")


def test_it_goes_with_one_vocabulary(params, vocabulary, words):
    with pytest.raises(InputError, match="a shortlist of 300 source words and 299 others does"):
        short = words._replace(size=299)
        Translator(Transformer(CONFIG), params, vocabulary, shortlist=short)
    with pytest.raises(InputError, match="a shortlist of 299 source words and 300 others does"):
        short = words._replace(starts=words.starts[:-1])
        Translator(Transformer(CONFIG), params, vocabulary, shortlist=short)


def test_it_is_kept_with_a_run(words, tmp_path):
    assert shortlist.load(tmp_path) is None
    words.save(tmp_path)
    for one, other in zip(shortlist.load(tmp_path), words, strict=True):
        np.testing.assert_array_equal(one, other)
    content = (tmp_path / NAME).read_bytes()
    for corrupt in b"", content[:100], content[:-30]:
        (tmp_path / NAME).write_bytes(corrupt)
        with pytest.raises(DataError, match=f"{NAME} is corrupt") as told:
            shortlist.load(tmp_path)
        assert "\n" not in str(told.value)
    words._replace(ids=words.ids + 20).save(tmp_path)
    with pytest.raises(DataError, match="corrupt: it contains ids outside the vocabulary"):
        shortlist.load(tmp_path)
