"""TensorBoard event files, written without a thread, with a full disk and clock changes."""

import struct
import threading
import time

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from tests.train.disks import Disk
from train.metrics import MetricsWriter, read_metrics
from train.tensorboard import EventFile


def events(folder):
    """The events of each file, in TensorBoard's reading order."""
    files = []
    for path in sorted(folder.iterdir(), key=lambda path: path.name):
        data, files = path.read_bytes(), [*files, []]
        while data:
            (size,) = struct.unpack_from("<Q", data)
            content = data[12 : 12 + size]
            sums = struct.unpack_from("<I", data, 8) + struct.unpack_from("<I", data, 12 + size)
            assert sums == (masked_crc32c(data[:8]), masked_crc32c(content))
            files[-1].append(Event.FromString(content))
            data = data[16 + size :]
    return files


def scalars(file):
    return [(e.step, {v.tag: v.simple_value for v in e.summary.value}) for e in file if e.summary]


def test_an_event_has_all_values_of_its_step_and_resuming_purges_later_ones(tmp_path):
    warnings = []
    first = EventFile(tmp_path, warnings.append)
    first.write(5, {"train/loss": 1.5, "train/padding": 0.25})
    first.write(6, {"valid/loss": float("inf"), "valid/perplexity": 1e308})
    first.close()
    EventFile(tmp_path, warnings.append, purge_step=6).close()
    one, two = events(tmp_path)
    assert one[0].file_version == two[0].file_version == "brain.Event:2"
    infinite = float("inf")
    assert scalars(one[1:]) == [
        (5, {"train/loss": 1.5, "train/padding": 0.25}),
        (6, {"valid/loss": infinite, "valid/perplexity": infinite}),
    ]
    assert (two[1].step, two[1].session_log.status) == (6, SessionLog.START)
    assert warnings == []


def test_clock_changes_and_a_full_disk_do_not_block_training(tmp_path, monkeypatch):
    real_time, threads = time.time, threading.active_count()
    with MetricsWriter(tmp_path, warn=print) as writer:
        writer.write(1, "train", {"loss": 0.0})
    monkeypatch.setattr(time, "time", lambda: real_time() - 400 * 24 * 3600)
    warnings, disk = [], Disk(monkeypatch, 1 << 20)
    with MetricsWriter(tmp_path, 1, warnings.append) as writer:
        assert threading.active_count() == threads
        for step in range(2, 100):
            disk.free_bytes = 0 if 50 <= step < 90 else 1 << 20
            writer.write(step, "train", {"loss": float(step)})
    assert [line.split(": ")[1].split(";")[0] for line in warnings] == [
        "No space left on device"
    ] * 2
    assert [event["step"] for event in read_metrics(tmp_path)] == [*range(1, 100)]
    _, second = events(tmp_path / "tensorboard")  # sorted after the first despite an earlier clock
    assert [step for step, _ in scalars(second[2:])] == [*range(2, 100)]
    assert second[0].wall_time < real_time() - 399 * 24 * 3600
