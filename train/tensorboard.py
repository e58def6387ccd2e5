"""TensorBoard event files, written synchronously.

tensorboardX writes from a thread behind a bounded queue: a full disk ends the thread, a clock that
is set back stalls it, and the queue then blocks training forever. Only its message types and its
checksum are used here.
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
    """A new event file in a folder; no method raises OSError: `warn` is called instead.

    TensorBoard ignores the events of earlier files from `purge_step` on.
    """

    def __init__(self, folder: Path, warn: Callable[[str], None], purge_step: int | None = None):
        # Imported only here: if PyTorch is installed, this imports PyTorch.
        from tensorboardX.proto.event_pb2 import SessionLog

        self._file = AppendFile(folder / _next_name(folder), warn, shown=folder)
        self._append(file_version="brain.Event:2")
        if purge_step is not None:
            self._append(step=purge_step, session_log=SessionLog(status=SessionLog.START))

    def write(self, step: int, scalars: dict[str, float]) -> None:
        """Write one event: scalar values by their tags, at a step."""
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=tag, simple_value=x) for tag, x in scalars.items()]
        self._append(step=step, summary=Summary(value=values))

    def close(self) -> None:
        """Write pending events if possible, and close the file."""
        self._file.close()

    def _append(self, **fields) -> None:
        """Append one TFRecord: length, its checksum, the event, its checksum."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        data = Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(data))
        checksums = (struct.pack("<I", masked_crc32c(content)) for content in (length, data))
        self._file.append(length + next(checksums) + data + next(checksums))


def _next_name(folder: Path) -> str:
    """A file name that sorts after all existing ones, since TensorBoard reads files by name.

    A clock that was set back, or two files within a second, must not change that order.
    """
    matches = []
    with suppress(OSError):
        matches = [_NAME.match(path.name) for path in folder.glob("events.out.tfevents.*")]
    min_time = max((int(match[1]) + 1 for match in matches if match), default=0)
    return f"events.out.tfevents.{max(int(time.time()), min_time):010d}.{socket.gethostname()}"
