"""The token cache: each text is tokenized once, and cache entries are never mixed up."""

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
def tokenized(monkeypatch):
    """The texts that were tokenized, not read from the cache."""
    texts = []
    original = tokenize
    monkeypatch.setattr(token_cache, "tokenize", lambda *a: texts.append(a[0]) or original(*a))
    return texts


def test_a_text_is_tokenized_once(tmp_path, vocabulary, tokenized):
    expected, progress = tokenize(PAIRS, vocabulary).digest(), []
    for _ in range(2):
        tokens = tokenize_cached(PAIRS, vocabulary, tmp_path / "deep" / "er", progress.append)
        assert tokens.digest() == expected
    assert tokenized == [PAIRS] and progress == [len(PAIRS)] * 2


def test_other_texts_and_vocabularies_are_not_confused(tmp_path, vocabulary, tokenized):
    changed = LINES[:-1] + ["the red cat"]
    shifted = ["ab", "c"], ["a", "bc"]  # the same letters with another line break
    texts = (
        PAIRS,
        ParallelText(LINES, changed),
        ParallelText(changed, LINES),
        *(ParallelText(m, m) for m in shifted),
    )
    for text in texts:
        assert tokenize_cached(text, vocabulary, tmp_path).digest() == (
            tokenize(text, vocabulary).digest()
        )
    vocabulary_300 = Vocabulary.train(PAIRS, 300)
    assert (
        tokenize_cached(PAIRS, vocabulary_300, tmp_path).digest()
        == tokenize(PAIRS, vocabulary_300).digest()
    )
    assert len(tokenized) == len(texts) + 1


def test_demo_digests_depend_on_seed_and_direction():
    digests = {
        open_corpus("demo", split, seed=s).digest() for split in ("train", "test") for s in (0, 1)
    }
    reversed_demo = open_corpus("demo", "test", source_language="de", target_language="en")
    assert len(digests | {reversed_demo.digest()}) == 5
    assert open_corpus("demo", "test").digest() in digests


def test_corrupt_cache_files_are_replaced(tmp_path, vocabulary, tokenized):
    expected = tokenize_cached(PAIRS, vocabulary, tmp_path).digest()
    (file,) = tmp_path.glob("*.npz")
    intact = file.read_bytes()
    corrupted = [intact[:cut] for cut in (0, 10, len(intact) // 2, len(intact) - 1)]
    for position in range(0, len(intact), 97):
        corrupted.append(intact[:position] + bytes([intact[position] ^ 4]) + intact[position + 1 :])
    for content in corrupted:
        file.write_bytes(content)
        assert tokenize_cached(PAIRS, vocabulary, tmp_path).digest() == expected
    assert len(tokenized) > len(corrupted) // 2 and file.stat().st_size == len(intact)


def test_an_unwritable_cache_folder_is_ignored(tmp_path, vocabulary, tokenized):
    (tmp_path / "file").write_text("")
    expected = tokenize(PAIRS, vocabulary).digest()
    assert tokenize_cached(PAIRS, vocabulary, tmp_path / "file").digest() == expected
    assert tokenized == [PAIRS]


def test_concurrent_calls_tokenize_once(tmp_path, vocabulary, tokenized):
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda _: tokenize_cached(PAIRS, vocabulary, tmp_path), range(8)))
    assert tokenized == [PAIRS] and len({tokens.digest() for tokens in results}) == 1


def test_the_least_recently_used_file_is_deleted(tmp_path, vocabulary, tokenized, monkeypatch):
    texts = [ParallelText([line], [line]) for line in LINES[:3]]
    for age, text in enumerate(texts[:2]):
        tokenize_cached(text, vocabulary, tmp_path)
        newest = max(tmp_path.glob("*.npz"), key=os.path.getctime)
        os.utime(newest, (10**9 - age, 10**9 - age))
    size = newest.stat().st_size
    tokenize_cached(texts[0], vocabulary, tmp_path)  # now the most recently used
    monkeypatch.setattr(token_cache, "_MAX_BYTES", 2 * size)
    tokenize_cached(texts[2], vocabulary, tmp_path)
    assert len(list(tmp_path.glob("*.npz"))) == 2
    tokenize_cached(texts[0], vocabulary, tmp_path)
    assert tokenized == texts
