"""Metric files of a run, and the progress line."""

import errno
import io
import json
import math
import struct
from pathlib import Path

import pytest

from tests.train.disks import Disk
from train.metrics import MetricsWriter, once, read_metrics
from train.progress import Progress, format_duration


def test_an_event_is_one_line_in_full_precision(tmp_path):
    loss = 1 / 3 + 1e-16
    with MetricsWriter(tmp_path / "new") as writer:
        writer.write(10, "train", {"loss": loss, "note": "x"})
        text = (tmp_path / "new" / "metrics.jsonl").read_text()  # written immediately, not at close
    assert json.loads(text) == {"step": 10, "event": "train", "loss": loss, "note": "x"}
    assert text.endswith("\n") and text.count("\n") == 1


def test_resuming_drops_later_events(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        for step in (10, 20, 30, 40):
            writer.write(step, "train", {"loss": float(step)})
            writer.write(step, "valid", {"loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 50, "spl')  # the crash
    assert [e["step"] for e in read_metrics(tmp_path)] == [10, 10, 20, 20, 30, 30, 40, 40]
    with MetricsWriter(tmp_path, step=20) as writer:
        writer.write(30, "train", {"loss": -1.0})
    events = read_metrics(tmp_path)
    assert [(e["step"], e["event"], e["loss"]) for e in events] == [
        (10, "train", 10.0),
        (10, "valid", 10.0),
        (20, "train", 20.0),
        (20, "valid", 20.0),
        (30, "train", -1.0),
    ]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_new_run_starts_a_new_file(tmp_path):
    for _ in range(2):
        with MetricsWriter(tmp_path) as writer:
            writer.write(0, "valid", {"loss": 1.0})
    assert len(read_metrics(tmp_path)) == 1


def test_tensorboard_gets_numeric_metrics(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(10, "valid", {"loss": 1.5, "signature": "words"})
    (file,) = (tmp_path / "tensorboard").iterdir()
    content = file.read_bytes()
    assert b"valid/loss" in content and struct.pack("<f", 1.5) in content
    assert b"signature" not in content


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_redraws_one_line_in_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    progress = Progress(stream, every=0.0)
    progress.show("step 1 " + "x" * 50)
    progress.show("step 2")
    progress.log("bleu 30, whole however long")
    progress.close()
    assert stream.getvalue() == (
        "\r\x1b[Kstep 1 " + "x" * 12 + "\r\x1b[Kstep 2\r\x1b[Kbleu 30, whole however long\n\r\x1b[K"
    )


def test_progress_prints_only_log_lines_without_a_terminal():
    stream = io.StringIO()
    progress = Progress(stream, every=0.0)
    progress.show("step 7")
    progress.log("bleu 30")
    progress.close()
    assert not progress.due() and stream.getvalue() == "bleu 30\n"


def test_non_finite_metrics_are_null_and_corrupt_lines_are_skipped(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, "train", {"loss": math.nan, "perplexity": math.inf})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'\xff{"broken\n')
    with MetricsWriter(tmp_path, 1) as writer:
        writer.write(2, "train", {"loss": 1.0})
    first, second = read_metrics(tmp_path)
    assert first["loss"] is None and first["perplexity"] is None and second["loss"] == 1.0


def test_unusable_lines_are_reported_once_and_dropped_when_resuming(tmp_path):
    lines = ["[1]", '"step"', '{"step": 3}', '{"step": "4", "event": "train"}', "null"]
    lines += ['{"step": -1, "event": "train"}', '{"step": 5, "event": "train", "loss": "x"}']
    event = '{"step": 1, "event": "train", "loss": 1e308}'
    later = '{"step": 9, "event": "train"}'
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(f"{line}\n" for line in (*lines, event, later)) + '{"step": 2, "sp')
    assert [e["step"] for e in read_metrics(tmp_path)] == [1, 9]
    for expected in [f"{path}: 8 unusable lines were skipped: lines 1, 2, 3, 4, 5, 6, 7, 10"], []:
        warnings = []
        MetricsWriter(tmp_path, 3, warnings.append).close()
        assert warnings == expected and path.read_text() == f"{event}\n"


def test_all_writers_of_a_run_report_a_file_once(tmp_path):
    (tmp_path / "tensorboard").write_text("")
    warnings = []
    warn = once(warnings.append)
    for step in 0, 10, 20:  # as after rollbacks, and for the test
        with MetricsWriter(tmp_path, step, warn) as writer:
            writer.write(step + 1, "train", {"loss": 1.0})
            writer.write(step + 2, "train", {"loss": 1.0})
    assert [line.split(":")[0] for line in warnings] == [f"cannot write {tmp_path}/tensorboard"]


@pytest.mark.parametrize("step", [0, 15])
def test_a_run_resumes_on_a_full_disk(tmp_path, monkeypatch, step):
    with MetricsWriter(tmp_path) as writer:
        for event_step in (10, 20):
            writer.write(event_step, "train", {"loss": 1.0})
    warnings = []
    disk = Disk(monkeypatch, 0)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", lambda *_: disk.write(0, b"x"))
        writer = MetricsWriter(tmp_path, step, warnings.append)
        writer.write(20, "train", {"loss": 2.0})
    assert [e["step"] for e in read_metrics(tmp_path)] == [10] * bool(step)
    assert len(warnings) == 2 and "metrics.jsonl: No space left on device" in warnings[1]
    disk.free_bytes = 1000
    writer.close()
    assert [e["step"] for e in read_metrics(tmp_path)] == [10] * bool(step) + [20]


@pytest.mark.parametrize("failing", [OSError(errno.ENOSPC, "full"), BrokenPipeError()])
def test_an_unwritable_stderr_does_not_end_a_run(failing):
    stream, texts = Terminal(), []

    def fail(text):
        texts.append(text)
        raise failing

    stream.write = fail
    progress = Progress(stream, every=0.0)
    progress.show("step 1")
    progress.log("bleu 30")
    progress.close()
    clear = "\r\x1b[K"
    assert texts == [f"{clear}step 1", f"{clear}bleu 30", clear]  # each was tried


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (12_000, "3 h 20 min")],
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text and math.isfinite(seconds)
