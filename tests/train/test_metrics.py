"""The files that a run leaves behind, and the line that it shows."""

import io
import json
import math
import struct

import pytest

from train.metrics import MetricsWriter, read_metrics
from train.progress import Progress, duration


def test_an_event_is_a_line_in_full_precision(tmp_path):
    loss = 1 / 3 + 1e-16
    with MetricsWriter(tmp_path / "new") as writer:
        writer.write(10, "train", {"loss": loss, "note": "x"})
        text = (tmp_path / "new" / "metrics.jsonl").read_text()  # at once, not when closed
    assert json.loads(text) == {"step": 10, "split": "train", "loss": loss, "note": "x"}
    assert text.endswith("\n") and text.count("\n") == 1


def test_resuming_drops_what_will_be_measured_again(tmp_path):
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
    assert [(e["step"], e["split"], e["loss"]) for e in events] == [
        (10, "train", 10.0),
        (10, "valid", 10.0),
        (20, "train", 20.0),
        (20, "valid", 20.0),
        (30, "train", -1.0),
    ]
    assert not list(tmp_path.glob("*.tmp"))


def test_a_fresh_run_starts_a_fresh_file(tmp_path):
    for _ in range(2):
        with MetricsWriter(tmp_path) as writer:
            writer.write(0, "valid", {"loss": 1.0})
    assert len(read_metrics(tmp_path)) == 1


def records(folder):
    """TFRecord payloads: length, its checksum, data, its checksum."""
    for path in sorted(folder.glob("events.*")):
        data, at = path.read_bytes(), 0
        while at < len(data):
            (size,) = struct.unpack_from("<Q", data, at)
            yield data[at + 12 : at + 12 + size]
            at += 12 + size + 4


def test_tensorboard_draws_the_numbers(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(10, "valid", {"loss": 1.5, "signature": "words"})
    written = list(records(tmp_path / "tensorboard"))
    loss = [r for r in written if b"valid/loss" in r]
    assert len(loss) == 1 and struct.pack("<f", 1.5) in loss[0]
    assert not any(b"signature" in r for r in written)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_sees_one_line_redrawn(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    progress = Progress(stream, every=0.0)
    progress.show("step 1 " + "x" * 50)
    progress.show("step 2")
    progress.note("bleu 30, whole however long")
    progress.close()
    assert stream.getvalue() == (
        "\r\x1b[Kstep 1 " + "x" * 12 + "\r\x1b[Kstep 2\r\x1b[Kbleu 30, whole however long\n\r\x1b[K"
    )


def test_elsewhere_only_notes_are_told():
    stream = io.StringIO()
    progress = Progress(stream, every=0.0)
    progress.show("step 7")
    progress.note("bleu 30")
    progress.close()
    assert not progress.due() and stream.getvalue() == "bleu 30\n"


def test_what_is_no_number_is_null_and_damaged_lines_are_left_out(tmp_path):
    with MetricsWriter(tmp_path) as writer:
        writer.write(1, "train", {"loss": math.nan, "perplexity": math.inf})
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'\xff{"broken\n')
    with MetricsWriter(tmp_path, 1) as writer:
        writer.write(2, "train", {"loss": 1.0})
    first, second = read_metrics(tmp_path)
    assert first["loss"] is None and first["perplexity"] is None and second["loss"] == 1.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"), (12_000, "3 h 20 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text and math.isfinite(seconds)
