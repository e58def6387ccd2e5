"""The lexical shortlist compared with a search that bans all other tokens."""

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
from tests.decode.tiny_model import CONFIG, assert_same, sentences, translator

SIZE = CONFIG.vocab_size


@pytest.fixture(scope="module")
def word_shortlist():
    """A shortlist: a few random target ids per source id, and four ids that are always allowed."""
    random = np.random.default_rng(0)
    counts = random.integers(0, 12, SIZE)
    ids = random.integers(UNK + 1, SIZE, counts.sum()).astype(np.int32)
    always = np.array([7, 30, 31, 299], np.int32)
    return Shortlist(np.cumsum([0, *counts]), ids, always, SIZE)


def allowed_ids(word_shortlist, source):
    ids = {EOS, UNK, *word_shortlist.always.tolist()}
    for id in source:
        ids |= set(
            word_shortlist.ids[word_shortlist.starts[id] : word_shortlist.starts[id + 1]].tolist()
        )
    return ids


def test_only_shortlisted_tokens_are_allowed(word_shortlist):
    sources = [[5, 9, 9], [], [299, 4]]
    bits = np.stack([word_shortlist.allowed(source) for source in sources])
    random = np.random.default_rng(1)
    log_probs = jnp.asarray(random.normal(size=(3, 2, 384)), jnp.float32)  # padded vocabulary
    restricted = transforms.restrict_to(jnp.asarray(bits))(log_probs, None, None)
    for row, source in enumerate(sources):
        allowed = allowed_ids(word_shortlist, source)
        for id in range(384):
            expected = log_probs[row, :, id] if id in allowed else -np.inf
            np.testing.assert_array_equal(restricted[row, :, id], expected)


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"beam_size": 2}, {"method": "greedy"}], ids=str)
def test_a_shortlist_equals_banning_all_other_tokens(params, vocabulary, word_shortlist, options):
    text = sentences(9)
    plain = translator(params, vocabulary, **options)
    limited = Translator(
        Transformer(CONFIG), params, vocabulary, options=plain.options, shortlist=word_shortlist
    )
    n_best = limited.hypotheses(text)
    # Only every fourth line, because each ban list compiles a search.
    for line, hypotheses in zip(text[::4], n_best[::4], strict=True):
        (ids,) = vocabulary.source.encode([line])
        allowed = allowed_ids(word_shortlist, [*ids, EOS])
        banned = tuple((id,) for id in range(UNK + 1, SIZE) if id not in allowed)
        expected = plain.with_options(replace(plain.options, banned=banned)).hypotheses([line])
        assert_same([hypotheses], expected)
    free = plain.hypotheses(text)
    assert [f[0].text for f in n_best] != [f[0].text for f in free]  # the shortlist has an effect


@pytest.mark.slow
def test_required_phrases_and_prefixes_are_allowed_with_a_shortlist(
    params, vocabulary, word_shortlist
):
    options = SearchOptions(max_length_offset=6, max_length=16, beam_size=3)
    limited = Translator(
        Transformer(CONFIG), params, vocabulary, options=options, shortlist=word_shortlist
    )
    ((best, *_),) = limited.hypotheses(["the book"], required=[["green monday"]])
    assert "green monday" in best.text
    (ids,) = vocabulary.source.encode(["the book"])
    (required_ids,) = vocabulary.target.encode(["green monday"])
    # Required tokens are always allowed, not only when few tokens remain.
    allowed = allowed_ids(word_shortlist, [*ids, EOS]) | set(required_ids)
    banned = tuple((id,) for id in range(UNK + 1, SIZE) if id not in allowed)
    plain = translator(params, vocabulary, beam_size=3, banned=banned)
    assert_same([[best]], [plain.hypotheses(["the book"], required=[["green monday"]])[0][:1]])
    ((best, *_),) = limited.hypotheses(["the book"], prefixes=["on a monday"])
    assert best.text.startswith("on a monday")


def test_a_shortlist_of_another_vocabulary_is_rejected(params, vocabulary, word_shortlist):
    with pytest.raises(InputError, match="a shortlist of 300 source and 299 target ids does"):
        short = word_shortlist._replace(size=299)
        Translator(Transformer(CONFIG), params, vocabulary, shortlist=short)
    with pytest.raises(InputError, match="a shortlist of 299 source and 300 target ids does"):
        short = word_shortlist._replace(starts=word_shortlist.starts[:-1])
        Translator(Transformer(CONFIG), params, vocabulary, shortlist=short)


def test_a_shortlist_is_saved_with_a_run_and_corruption_is_reported(word_shortlist, tmp_path):
    assert shortlist.load(tmp_path) is None
    word_shortlist.save(tmp_path)
    for loaded, saved in zip(shortlist.load(tmp_path), word_shortlist, strict=True):
        np.testing.assert_array_equal(loaded, saved)
    content = (tmp_path / NAME).read_bytes()
    for corrupt in b"", content[:100], content[:-30]:
        (tmp_path / NAME).write_bytes(corrupt)
        with pytest.raises(DataError, match=f"{NAME} is corrupt") as error_info:
            shortlist.load(tmp_path)
        assert "\n" not in str(error_info.value)
    word_shortlist._replace(ids=word_shortlist.ids + 20).save(tmp_path)
    with pytest.raises(DataError, match="corrupt: it contains ids outside the vocabulary"):
        shortlist.load(tmp_path)
