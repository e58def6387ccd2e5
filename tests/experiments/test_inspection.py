"""Checks of data inspection, compared with slow reference counts."""

from itertools import islice
from types import SimpleNamespace

import numpy as np
import pytest

from data import demo
from data.pairs import SPLITS, ParallelText
from data.pipeline import Ragged, TokenPairs
from data.vocabulary import Vocabulary
from experiments.inspection import duplicate_pairs, languages, lengths, runner, scripts_and_encoding
from experiments.inspection.coverage import count_pieces, find_unknown
from experiments.inspection.scripts import script
from experiments.inspection.section import locate
from experiments.inspection.survey import survey


@pytest.mark.parametrize(
    ("line", "name", "letters"),
    [
        ("The 3 cats", "LATIN", 7),
        ("12, 34!", "", 0),
        ("Größe µ²", "LATIN", 5),
        ("Привет, OK", "CYRILLIC", 8),
        ("日本語のテキスト", "CJK", 8),
        ("ｆｕｌｌ", "LATIN", 4),
        ("", "", 0),
    ],
)
def test_a_lines_script_is_that_of_most_letters(line, name, letters):
    expected = {"日本語のテキスト": "KATAKANA"}.get(line, name)
    assert script(line) == (expected, letters)


def test_words_are_counted_only_in_languages_with_spaces():
    pairs = ParallelText(["two words", "one"], ["我今天去学校。", "他在看书。"])
    surveys = {"train": survey(pairs)}
    section = runner._counts(surveys, ("en", "zho_Hans"))
    source, target = {"words": 3, "characters": 12}, {"characters": 12}
    assert section.values["train"] == {"pairs": 2, "source": source, "target": target}
    assert section.lines == ["train: 2 pairs; source 3 words, 12 characters; target 12 characters"]
    assert languages.label_of("deu_Latn") == languages.label_of("de_DE") == "de"
    assert languages.label_of("xx") == languages.label_of("target") == ""


def test_several_scripts_and_languages_of_a_side(capsys):
    sides = ["Студент читает книгу."] * 60 + ["Der Student liest das Buch sehr gern."] * 40
    pairs = {split: ParallelText(sides, sides) for split in SPLITS}
    surveys = {split: survey(parallel_text) for split, parallel_text in pairs.items()}
    scripts = scripts_and_encoding.find_scripts(surveys)
    assert scripts.warnings == [] and scripts.values["train"]["source"]["scripts"] == [
        "CYRILLIC", "LATIN",
    ]  # fmt: skip
    progress = []
    section = scripts_and_encoding.find_languages(pairs, surveys, ("xx", "de"), progress.append)
    assert sum(progress) == 2 * 3 * 100
    assert section.values["train"]["source"]["expected"] == "de"  # the only one with 20 letters
    assert section.warnings == []


def test_language_identification_in_parallel_equals_serial(monkeypatch):
    pairs = islice(map(list, demo.Demo("train")), 25)
    lines = [side for pair in pairs for side in pair]
    lines.append("Le professeur lit un livre dans la bibliothèque.")
    serial = list(languages.identify(lines, "de", len(lines)))
    monkeypatch.setattr(languages, "_MAX_SERIAL", 0)
    monkeypatch.setattr(languages, "_CHUNK", 7)
    monkeypatch.setattr(languages.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert list(languages.identify(lines, "de", len(lines))) == serial
    assert serial[-1] == ("fr", True) and 15 < sum(wrong for _, wrong in serial) < 30


def test_duplicates_and_overlap_equal_a_slow_count():
    rng, kinds = np.random.default_rng(0), (("s", 60), ("t", 3))
    splits = {
        split: ParallelText(*([f"{name}{n}" for n in rng.integers(0, k, 80)] for name, k in kinds))
        for split in SPLITS
    }
    surveys = {split: survey(pairs) for split, pairs in splits.items()}
    duplicates = duplicate_pairs.find_duplicates(splits, surveys)
    overlap = duplicate_pairs.find_overlap(splits, surveys)
    for split, pairs in splits.items():
        rows = [pairs[i] for i in range(80)]
        expected = {i: rows.index(row) for i, row in enumerate(rows) if row in rows[:i]}
        reported = {w.index: w.text for w in duplicates.warnings if w.split == split}
        assert reported == {i: f"the same pair as line {j + 1}" for i, j in expected.items()}
        targets = {s: {t for r, t in rows if r == s} for s, _ in rows}
        num_sources = sum(len(translations) > 1 for translations in targets.values())
        assert duplicates.values[split]["sources_with_several_targets"] == num_sources
    train, test = ([splits[name][i] for i in range(80)] for name in ("train", "test"))
    reported = [w for w in overlap.warnings if w.split == "test"]
    pair_overlap = {w.index for w in reported if w.kind == "pair in train"}
    assert pair_overlap == {i for i, pair in enumerate(test) if pair in train}
    sources = {w.index: w.text for w in reported if w.kind == "source in train"}
    train_sources = [source for source, _ in train]
    assert sources == {
        i: f"the source is also train source, line {train_sources.index(pair.source) + 1}"
        for i, pair in enumerate(test)
        if pair not in train and pair.source in train_sources
    }


def test_outliers_deviate_from_the_usual_length_ratio():
    rng = np.random.default_rng(0)
    lengths_of = rng.integers(11, 40, 500)
    sides = [lengths_of, 3 * lengths_of + rng.integers(-2, 3, 500)]
    sides[1][7] = lengths_of[7]  # as long as its source, where the usual ratio is 3
    sides[1][8] = 12 * lengths_of[8]
    sides[0][9], sides[1][9] = 2, 10  # too short to judge
    pairs = TokenPairs(*(Ragged([[9] * n for n in side]) for side in sides))
    section = lengths.find_outliers({"train": pairs})
    assert [w.index for w in section.warnings] == [7, 8]
    assert section.values["usual"] == pytest.approx(3, abs=0.1) and section.values["train"] == 2


def test_pieces_are_counted_and_unknown_characters_are_named():
    words = ["red cat", "green dog", "two cats"] * 40
    train = ParallelText(words, [word.upper() for word in words])
    vocabulary = Vocabulary.train(train, 290, shared=False)
    other = ParallelText(["red é cat", "two ☃ é"], ["TWO", "Q"])
    section = find_unknown({"train": train, "valid": other, "test": other}, vocabulary)
    assert section.values["valid"]["source"] == {"é": 2, "☃": 1}
    assert section.values["test"]["target"] == {"Q": 1}
    assert len(section.warnings) == 6
    sides = zip(vocabulary, (train.source, train.target), strict=True)
    ids = [Ragged(side.encode(list(lines))) for side, lines in sides]
    counts = count_pieces(TokenPairs(*ids), vocabulary, rare_below=41).values
    pieces = [
        piece for row in vocabulary.source.encode(list(train.source))
        for piece in vocabulary.source.pieces(row)
    ]  # fmt: skip
    vocabulary_pieces = set(vocabulary.source.pieces(range(4, vocabulary.source.vocab_size)))
    vocabulary_pieces = {piece for piece in vocabulary_pieces if not piece.startswith("<0x")}
    assert counts["source"]["pieces"] == len(vocabulary_pieces) and counts["source"]["bytes"] == 0
    assert counts["source"]["seen_less"] == sum(
        pieces.count(piece) < 41 for piece in vocabulary_pieces
    )
    assert counts["source"]["never"] == len(vocabulary_pieces - set(pieces))
    longest = max(map(len, vocabulary_pieces))
    assert {len(piece) for piece in list(counts["source"]["longest"])[:1]} == {longest}


def test_warnings_are_located_in_files_or_pairs():
    named = ParallelText(["a"], ["b"], ("x.tsv", "x.tsv"), first_line=2)
    assert locate({"test": named}, "test", 1, 0) == ("x.tsv", 2)
    assert locate({"test": SimpleNamespace()}, "test", 1, 4) == ("test target", 5)
