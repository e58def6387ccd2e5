"""Reports of runs with corrupt files: unusable lines are skipped and listed."""

import json
import shutil

import pytest

from data.errors import DataError
from experiments.report.page import render
from experiments.report.record import read_run


def test_corrupt_lines_of_a_run_are_skipped_and_listed(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    event = {"step": 31, "event": "train"}
    lines = {
        "metrics.jsonl": [
            '["step"]', '"step"', '{"step": 1}', json.dumps(event | {"step": "x"}),
            json.dumps(event | {"loss": float("inf")}), json.dumps(event | {"loss": [1]}),
            json.dumps(event | dict(loss=1e308, learning_rate=-1e308, padding_fraction=5e-324)),
            json.dumps(event | dict(loss=-1e299, tokens_per_second=1e299, elapsed_seconds=1e308)),
            json.dumps(event | {"event": "valid", "loss": 1e305, "bleu": 1e305}),
            json.dumps(event | {"event": "test", "bleu": None, "signature": None}),
            json.dumps(event | {"loss": 1})[:-2] + "9" * 4000 + "}", "[" * 50_000 + "]" * 50_000,
        ],
        "environment.jsonl": ['{"devices": 1}', '{"date": "x", "mesh": []}'],
        "translations.jsonl": [
            '{"source": "a", "reference": "b", "hypothesis": "\\ud800", "score": 0}',
            '{"source": "a", "reference": "b", "hypothesis": "c", "score": 1e308}',
        ],
    }  # fmt: skip
    for name, added_lines in lines.items():
        with (folder / name).open("a") as file:
            file.writelines(f"{line}\n" for line in added_lines)
    run_record = read_run(folder)
    assert len(run_record.starts) == 1 and len(run_record.translations) == 7
    messages = [
        line.removeprefix(f"{folder}/").partition(" were ")[0] for line in run_record.corrupt
    ]
    assert messages[:2] == [
        "metrics.jsonl: 8 unusable lines",
        "environment.jsonl: 2 unusable lines",
    ]
    assert messages[2].startswith("translations.jsonl: 1 unusable line")
    page = render([run_record])
    assert "nan" not in page and "inf" not in page.replace("info", "")


def test_a_run_with_only_corrupt_events_lists_them(run, tmp_path):
    shutil.copy(run[0] / "config.json", tmp_path)
    (tmp_path / "metrics.jsonl").write_text("[]\n")
    with pytest.raises(DataError, match="nothing to report: .*: 1 unusable line was skipped"):
        read_run(tmp_path)
