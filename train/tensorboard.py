"""TensorBoard event files, written synchronously.

tensorboardX writes from a thread behind a bounded queue: a full disk ends the thread, a clock that
is set back suspends it, and the queue then blocks training for ever. Only its message types and
its checksum are used here.
"""

import re
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from train.append_log import AppendFile

_NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\.")


class EventFile:
    """A new event file in a folder; no method raises OSError, which `warn` hears of instead.

    TensorBoard leaves out what earlier files have from `purge_step` on.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None], purge_step: int | None = None):
        # Imported by who writes only: where PyTorch is installed, this imports PyTorch.
        from tensorboardX.proto.event_pb2 import SessionLog

        self._file = AppendFile(folder / _next_name(folder), warn)
        self._append(file_version="brain.Event:2")
        if purge_step is not None:
            self._append(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """One event: the values of these curves, by their tags, at a step."""
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=x) for tag, x in scalars.items()]
        self._append(step=step, summary=Summary(value=values))

    def close(self) -> None:
        """Writes what a full disk held up, if there is room by now."""
        self._file.close()

    def _append(self, **fields) -> None:
        """One TFRecord: length, its checksum, the event, its checksum."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        data = Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        sums = (struct.pack("<I", masked_crc32c(part)) for part in (length, data))
        self._file.append(length + next(sums) + data + next(sums))


def _next_name(folder: Path) -> str:
    """A name after all others there: TensorBoard reads files in the order of their names.

    A clock that was set back, or two files within a second, must not change that order.
    """
    found = []
    with suppress(OSError):
        found = [_NAME.match(path.name) for path in folder.glob("events.out.tfevents.*")]
    after = max((int(match[1]) + 1 for match in found if match), default=0)
    return f"events.out.tfevents.{max(int(time.time()), after):010d}.{socket.gethostname()}"
