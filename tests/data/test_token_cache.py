"""Text is tokenised once, and never taken for another."""

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from data import token_cache
from data.corpus import open_corpus
from data.pairs import ParallelText
from data.pipeline import tokenize
from data.token_cache import tokenize_cached
from data.vocabulary import Vocabulary

LINES = [f"the {word} cat, number {i}" for i in range(40) for word in ("red", "green", "")]
PAIRS = ParallelText(LINES, LINES[::-1])


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary.train(PAIRS, 290)


@pytest.fixture
def made(monkeypatch):
    """What was tokenised, rather than read."""
    found = []
    real = tokenize
    monkeypatch.setattr(token_cache, "tokenize", lambda *a: found.append(a[0]) or real(*a))
    return found


def test_a_text_is_tokenised_once(tmp_path, vocabulary, made):
    expected, heard = tokenize(PAIRS, vocabulary).digest(), []
    for _ in range(2):
        found = tokenize_cached(PAIRS, vocabulary, tmp_path / "deep" / "er", heard.append)
        assert found.digest() == expected
    assert made == [PAIRS] and heard == [len(PAIRS)] * 2


def test_another_text_and_another_vocabulary_are_told_apart(tmp_path, vocabulary, made):
    other = LINES[:-1] + ["the red cat"]
    moved = ["ab", "c"], ["a", "bc"]  # the same letters, cut elsewhere
    texts = (
        PAIRS,
        ParallelText(LINES, other),
        ParallelText(other, LINES),
        *(ParallelText(m, m) for m in moved),
    )
    for text in texts:
        assert tokenize_cached(text, vocabulary, tmp_path).digest() == (
            tokenize(text, vocabulary).digest()
        )
    learned = Vocabulary.train(PAIRS, 300)
    assert tokenize_cached(PAIRS, learned, tmp_path).digest() == tokenize(PAIRS, learned).digest()
    assert len(made) == len(texts) + 1


def test_demos_of_other_seeds_are_told_apart_unread():
    digests = {
        open_corpus("demo", split, seed=s).digest() for split in ("train", "test") for s in (0, 1)
    }
    turned = open_corpus("demo", "test", source_language="de", target_language="en")
    assert len(digests | {turned.digest()}) == 5
    assert open_corpus("demo", "test").digest() in digests


def test_what_is_not_whole_is_made_anew(tmp_path, vocabulary, made):
    expected = tokenize_cached(PAIRS, vocabulary, tmp_path).digest()
    (file,) = tmp_path.glob("*.npz")
    whole = file.read_bytes()
    spoiled = [whole[:cut] for cut in (0, 10, len(whole) // 2, len(whole) - 1)]
    for at in range(0, len(whole), 97):
        spoiled.append(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    for content in spoiled:
        file.write_bytes(content)
        assert tokenize_cached(PAIRS, vocabulary, tmp_path).digest() == expected
    assert len(made) > len(spoiled) // 2 and file.stat().st_size == len(whole)


def test_a_folder_that_cannot_be_written_to_costs_nothing_but_time(tmp_path, vocabulary, made):
    (tmp_path / "file").write_text("")
    expected = tokenize(PAIRS, vocabulary).digest()
    assert tokenize_cached(PAIRS, vocabulary, tmp_path / "file").digest() == expected
    assert made == [PAIRS]


def test_those_who_come_at_once_wait_for_one(tmp_path, vocabulary, made):
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: tokenize_cached(PAIRS, vocabulary, tmp_path), range(8)))
    assert made == [PAIRS] and len({each.digest() for each in found}) == 1


def test_the_longest_unused_makes_room(tmp_path, vocabulary, made, monkeypatch):
    texts = [ParallelText([line], [line]) for line in LINES[:3]]
    for age, text in enumerate(texts[:2]):
        tokenize_cached(text, vocabulary, tmp_path)
        newest = max(tmp_path.glob("*.npz"), key=os.path.getctime)
        os.utime(newest, (10**9 - age, 10**9 - age))
    size = newest.stat().st_size
    tokenize_cached(texts[0], vocabulary, tmp_path)  # used, and so the newest now
    monkeypatch.setattr(token_cache, "_MOST_BYTES", 2 * size)
    tokenize_cached(texts[2], vocabulary, tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2
    tokenize_cached(texts[0], vocabulary, tmp_path)
    assert made == texts
