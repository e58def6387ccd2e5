"""`inspect_data` finds planted faults at their lines, and nothing else."""

import json
import re
from dataclasses import replace
from itertools import islice

import pytest

from data import demo
from data.corpus import open_corpus
from data.errors import DataError
from data.pairs import SPLITS
from experiments.inspection import runner
from tests.experiments.commands import error_line, heed, small_experiment, train_args

COUNTS = {"train": 400, "valid": 30, "test": 30}
RARE = set("'CÄVZ0123456789-")
FRENCH = "Le professeur lit un livre dans la bibliothèque."
RUSSIAN = "Студент читает книгу дома."


def demo_pairs():
    """Demo pairs without characters that are so rare that a vocabulary lacks them."""
    splits = {}
    for split, count in COUNTS.items():
        pairs = map(list, demo.Demo(split))
        splits[split] = list(islice((p for p in pairs if not RARE & set("".join(p))), count))
    return splits


def write(folder, splits, kind="text"):
    folder.mkdir(exist_ok=True)
    for split, pairs in splits.items():
        if kind == "text":
            for side, language in enumerate(("en", "de")):
                text = "".join(pair[side] + "\n" for pair in pairs)
                (folder / f"{split}.{language}").write_text(text)
        elif kind == "tsv":
            rows = "".join(f"{target}\t{source}\n" for source, target in pairs)
            (folder / f"{split}.tsv").write_text(f"de\ten\n{rows}")
        else:
            rows = (json.dumps({"en": source, "de": target}) + "\n" for source, target in pairs)
            (folder / f"{split}.jsonl").write_text("".join(rows))
    return folder


def experiment_of(folder, kind="text", **data):
    experiment = small_experiment(folder)
    sizes = dict(vocab_size=800, tokens_per_batch=2000, max_length=80)
    return replace(experiment, data=replace(experiment.data, kind=kind, **(sizes | data)))


@pytest.fixture
def no_dry_run(monkeypatch):
    """Replaces the dry run, which compiles; only the command test runs it."""
    estimate = dict(num_params=1, mesh={}, bytes_per_device={}, batches=[], compilations=0)
    estimate |= dict(tokens_per_step=1.0, steps_per_epoch=1, padding_fraction=0.0)
    monkeypatch.setattr(runner, "estimate_resources", lambda t: estimate)


def warnings_and_sections(capsys):
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [row for row in rows if "warning" in row], {
        row["section"]: row for row in rows if "section" in row
    }


def pairs_with_faults():
    splits = demo_pairs()
    train, valid, test = (splits[split] for split in SPLITS)
    train[4] = list(train[2])  # line 5 repeats line 3
    train[9][1] = train[9][0]
    train[14][1] = "  "
    train[19][0] = train[19][0].replace("e", "\ufffd", 1)
    train[24] = [RUSSIAN, "Der kluge Student liest zu Hause ein Buch über Musik und Kunst."]
    train[29] = ["The teacher reads a book in the library of the city.", FRENCH]
    train[34] = ["The old teacher reads the long book in the big house every day.", "Ja."]
    train[39] = [" ".join([text] * 9) for text in train[39]]
    test[1] = list(train[49])
    valid[2] = [train[50][0], valid[2][1]]
    valid[4] = [valid[4][0], train[51][1]]
    test[6][1] += " ☃"
    return splits


PLANTED = {
    ("duplicate", "train.en", 5, "the same pair as line 3"),
    ("copy", "train.de", 10, "the target equals its source"),
    ("language", "train.de", 10, "reads as en, not de"),
    ("blank", "train.de", 15, "blank"),
    ("dropped", "train.en", 15, "dropped: a blank side"),
    ("broken", "train.en", 20, "has control characters or U+FFFD"),
    ("script", "train.en", 25, "mostly CYRILLIC"),
    ("language", "train.en", 25, "reads as ru, not en"),
    ("language", "train.de", 30, "reads as fr, not de"),
    ("ratio", "train.de", 35, ""),
    ("dropped", "train.en", 35, "dropped: lengths over data.max_ratio=3 times each other's"),
    ("dropped", "train.en", 40, "dropped: over data.max_length=80 tokens with EOS"),
    ("pair in train", "test.en", 2, "the pair is also DIR/train.en, line 50"),
    ("source in train", "valid.en", 3, "the source is also DIR/train.en, line 51"),
    ("target in train", "valid.de", 5, "the target is also DIR/train.de, line 52"),
    ("unknown", "test.de", 7, "no piece for U+2603 ☃ SNOWMAN"),
}


@pytest.mark.parametrize("kind", ["text", "tsv", "jsonl"])
def test_planted_faults_are_found_at_their_lines(kind, tmp_path, capsys, no_dry_run):
    folder = write(tmp_path / "text", pairs_with_faults(), kind)
    count = runner.inspect_data(experiment_of(folder, kind), tmp_path / "no", "jsonl")
    assert not (tmp_path / "no").exists()
    warnings, sections = warnings_and_sections(capsys)
    assert count == len(warnings) == sections["in all"]["warnings"]
    shift = {"text": 0, "tsv": 1, "jsonl": 0}[kind]
    texts = {(row["warning"], row["file"], row["line"] - shift): row["text"] for row in warnings}

    def file(name):
        return str(folder / (name if kind == "text" else name.split(".")[0] + f".{kind}"))

    assert set(texts) == {(warning, file(name), line) for warning, name, line, _ in PLANTED}
    for warning, name, line, text in PLANTED:
        if kind == "text":
            text = text.replace("DIR", str(folder))
            assert texts[warning, file(name), line].startswith(text)
    assert sections["counts"]["train"]["pairs"] == COUNTS["train"]
    assert sections["filters"] == {
        "section": "filters",
        "kept": COUNTS["train"] - 3,
        "dropped": {"empty": 1, "too_long": 1, "ratio": 1},
    }


@pytest.mark.parametrize("kind", ["text", "demo"])
def test_clean_text_has_no_warnings(kind, tmp_path, capsys, no_dry_run, monkeypatch):
    monkeypatch.setattr(demo.source, "SIZES", COUNTS)
    folder = write(tmp_path / "text", demo_pairs())
    runner.inspect_data(experiment_of(folder, kind), tmp_path / "no", "jsonl")
    warnings, sections = warnings_and_sections(capsys)
    if kind == "demo":  # the demo has rare characters and no files
        warnings = [row for row in warnings if row["warning"] != "unknown"]
    assert warnings == []
    pairs = open_corpus(kind, "train", path=str(folder))
    for number, side in enumerate(("source", "target")):
        lines = [pairs[i][number] for i in range(len(pairs))]
        assert sections["counts"]["train"][side] == {
            "words": sum(len(line.split()) for line in lines),
            "characters": sum(map(len, lines)),
        }
        assert sections["languages"]["train"][side]["expected"] == ("en", "de")[number]
        histogram = sections["lengths"]["histogram"]
        assert sum(row[side] for row in histogram) == len(lines)


@pytest.mark.slow
def test_the_command_prints_a_report_and_resource_estimates(run, text):
    config, _, *settings = train_args(text, "")
    code, out, err = heed("inspect_data", config, *settings, "--max_warnings=2")
    assert code == 0 and "Traceback" not in err, err
    for line in (
        "Counts", "  train: 120 pairs; source ", "Lengths", "Filters", "Pieces", "Samples",
        "What training would need", " compilations", "steps per epoch",
        f"  warning: {text}/train.en, line ", ": the same pair as line ",
        "--max_warnings=0 prints all",
        "  120 (100.0%) of 120 training pairs are kept",
    ):  # fmt: skip
        assert line in out, line
    (parameters,) = re.findall(r"[\d,]+ parameters on a mesh", run[2])
    assert f"  {parameters} of data 1, fsdp 1, tensor 1" in out


def test_errors_come_after_the_report_so_far(text, tmp_path, capsys):
    assert "data.kind=text needs" in error_line(
        "inspect_data", "--config=experiments/configs/text.py"
    )
    with pytest.raises(DataError, match="more than the training text supports"):
        runner.inspect_data(experiment_of(text, vocab_size=5000), tmp_path / "no")
    assert "120 pairs" in capsys.readouterr().out


def test_a_runs_vocabulary_is_used(run, text, capsys, no_dry_run):
    experiment = small_experiment(text)
    model = replace(experiment.model, norm="pre")
    optimizer = replace(experiment.optimizer, clip_norm=1.0)
    experiment = replace(experiment, model=model, optimizer=optimizer)
    runner.inspect_data(experiment, run[0], "jsonl")
    _, sections = warnings_and_sections(capsys)
    assert sections["pieces"]["vocabulary"]["size"] == 290
    assert "learning" not in capsys.readouterr().err


def test_help_is_printed():
    _, out, err = heed("inspect_data", "--help")
    assert "python -m experiments.inspect_data --config=" in out + err
    assert "--max_warnings" in out + err and "Traceback" not in err
