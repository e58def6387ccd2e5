"""Each thing that is looked for in data, against a slow count of it."""

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
from experiments.inspection.section import place
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
def test_a_lines_script_is_that_of_most_of_its_letters(line, name, letters):
    expected = {"日本語のテキスト": "KATAKANA"}.get(line, name)
    assert script(line) == (expected, letters)


def test_words_are_counted_where_there_are_spaces_between_them():
    pairs = ParallelText(["two words", "one"], ["我今天去学校。", "他在看书。"])
    surveys = {"train": survey(pairs)}
    section = runner._counts(surveys, ("en", "zho_Hans"))
    source, target = {"words": 3, "characters": 12}, {"characters": 12}
    assert section.values["train"] == {"pairs": 2, "source": source, "target": target}
    assert section.lines == ["train: 2 pairs; source 3 words, 12 characters; target 12 characters"]
    assert languages.known("deu_Latn") == languages.known("de_DE") == "de"
    assert languages.known("xx") == languages.known("target") == ""


def test_a_side_may_have_several_scripts_and_other_languages_than_its_code(capsys):
    sides = ["Студент читает книгу."] * 60 + ["Der Student liest das Buch sehr gern."] * 40
    pairs = {split: ParallelText(sides, sides) for split in SPLITS}
    surveys = {split: survey(each) for split, each in pairs.items()}
    scripts = scripts_and_encoding.find_scripts(surveys)
    assert scripts.warnings == [] and scripts.values["train"]["source"]["scripts"] == [
        "CYRILLIC", "LATIN",
    ]  # fmt: skip
    heard = []
    told = scripts_and_encoding.find_languages(pairs, surveys, ("xx", "de"), heard.append)
    assert sum(heard) == 2 * 3 * 100
    assert told.values["train"]["source"]["expected"] == "de"  # the only one of 20 letters
    assert told.warnings == []


def test_many_lines_are_judged_by_several_processes_as_by_one(monkeypatch):
    pairs = islice(map(list, demo.Demo("train")), 25)
    lines = [side for pair in pairs for side in pair]
    lines.append("Le professeur lit un livre dans la bibliothèque.")
    alone = list(languages.read_as(lines, "de", len(lines)))
    monkeypatch.setattr(languages, "_FEW", 0)
    monkeypatch.setattr(languages, "_CHUNK", 7)
    monkeypatch.setattr(languages.os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert list(languages.read_as(lines, "de", len(lines))) == alone
    assert alone[-1] == ("fr", True) and 15 < sum(wrong for _, wrong in alone) < 30


def test_repeats_are_those_of_a_slow_count():
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
        slow = {i: rows.index(row) for i, row in enumerate(rows) if row in rows[:i]}
        told = {w.index: w.text for w in duplicates.warnings if w.split == split}
        assert told == {i: f"the same pair as line {j + 1}" for i, j in slow.items()}
        targets = {s: {t for r, t in rows if r == s} for s, _ in rows}
        several = sum(len(each) > 1 for each in targets.values())
        assert duplicates.values[split]["sources_with_several_targets"] == several
    train, test = ([splits[name][i] for i in range(80)] for name in ("train", "test"))
    told = [w for w in overlap.warnings if w.split == "test"]
    whole = {w.index for w in told if w.kind == "pair in train"}
    assert whole == {i for i, pair in enumerate(test) if pair in train}
    sources = {w.index: w.text for w in told if w.kind == "source in train"}
    known = [source for source, _ in train]
    assert sources == {
        i: f"the source is also train source, line {known.index(pair.source) + 1}"
        for i, pair in enumerate(test)
        if pair not in train and pair.source in known
    }


def test_outliers_are_far_from_the_usual_ratio_whatever_that_is():
    rng = np.random.default_rng(0)
    lengths_of = rng.integers(11, 40, 500)
    sides = [lengths_of, 3 * lengths_of + rng.integers(-2, 3, 500)]
    sides[1][7] = lengths_of[7]  # as long as its source, where three times is usual
    sides[1][8] = 12 * lengths_of[8]
    sides[0][9], sides[1][9] = 2, 10  # too short to say
    pairs = TokenPairs(*(Ragged([[9] * n for n in side]) for side in sides))
    section = lengths.find_outliers({"train": pairs})
    assert [w.index for w in section.warnings] == [7, 8]
    assert section.values["usual"] == pytest.approx(3, abs=0.1) and section.values["train"] == 2


def test_pieces_are_counted_and_characters_that_have_none_are_named():
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
    told = count_pieces(TokenPairs(*ids), vocabulary, rare_below=41).values
    pieces = [
        piece for row in vocabulary.source.encode(list(train.source))
        for piece in vocabulary.source.pieces(row)
    ]  # fmt: skip
    every = set(vocabulary.source.pieces(range(4, vocabulary.source.vocab_size)))
    every = {piece for piece in every if not piece.startswith("<0x")}
    assert told["source"]["pieces"] == len(every) and told["source"]["bytes"] == 0
    assert told["source"]["seen_less"] == sum(pieces.count(piece) < 41 for piece in every)
    assert told["source"]["never"] == len(every - set(pieces))
    longest = max(map(len, every))
    assert {len(piece) for piece in list(told["source"]["longest"])[:1]} == {longest}


def test_places_are_those_of_files_or_of_pairs():
    named = ParallelText(["a"], ["b"], ("x.tsv", "x.tsv"), first=2)
    assert place({"test": named}, "test", 1, 0) == ("x.tsv", 2)
    assert place({"test": SimpleNamespace()}, "test", 1, 4) == ("test target", 5)
