"""Metrics on disk: metrics.jsonl and TensorBoard event files."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from data.atomic_write import write_atomic
from data.json_lines import iter_json_lines, read_json_lines, unusable_lines
from data.printable import finite_or_none
from train.append_log import AppendFile
from train.progress import Progress

FILE = "metrics.jsonl"
_Count = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]


class Event(msgspec.Struct):
    """The fields of a metrics.jsonl line that are read back; null replaces non-finite values."""

    step: _Count
    event: str
    elapsed_seconds: float | None = None
    loss: float | None = None
    bleu: float | None = None
    chrf: float | None = None
    signature: str | None = None
    chrf_signature: str | None = None
    checkpoint: _Count | list[_Count] | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    padding_fraction: float | None = None
    skipped_updates: float | None = None
    rollbacks: _Count | None = None


def print_warning(line: str) -> None:
    """Print a warning to stderr."""
    Progress().log(f"warning: {line}")


def once(warn: Callable[[str], None]) -> Callable[[str], None]:
    """Return `warn` for several writers of one run: it drops a line that it has had before."""
    seen: set[str] = set()

    def warn_once(line: str) -> None:
        if line not in seen:
            seen.add(line)
            warn(line)

    return warn_once


class MetricsWriter:
    """Append events to folder/metrics.jsonl and to folder/tensorboard.

    An event is one line, {"step", "event", ...}, with floats in full precision. A run that resumes
    from `step` first drops the events of later steps, which will be repeated; 0 drops all. Failed
    writes raise no errors: `warn` is called with one line, and missing lines of metrics.jsonl are
    written later, if possible.
    """

    def __init__(
        self, folder: str | Path, step: int = 0, warn: Callable[[str], None] = print_warning
    ):
        from train.tensorboard import EventFile

        self.path = Path(folder) / FILE
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _drop_after(self.path, step, warn)
        self._lines = AppendFile(self.path, warn)
        # TensorBoard ignores events of earlier files from this step on.
        self._tensorboard = EventFile(Path(folder) / "tensorboard", warn, step + 1)

    def write(self, step: int, event: str, values: Mapping[str, object]) -> None:
        """Write an event ("train", "valid", "test", ..); TensorBoard gets numbers only."""
        line = json.dumps(finite_or_none({"step": step, "event": event, **values})) + "\n"
        self._lines.append(line.encode())
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
        self._tensorboard.write(step, {f"{event}/{name}": float(v) for name, v in numbers.items()})

    def close(self) -> None:
        """Write pending events if possible, and close the files."""
        self._lines.close()
        self._tensorboard.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def read_metrics(folder: str | Path) -> list[dict]:
    """Read the events of folder/metrics.jsonl, without unusable lines. Raises DataError."""
    return read_json_lines(Path(folder) / FILE, Event).rows


def _drop_after(path: Path, step: int, warn: Callable[[str], None]) -> None:
    """Drop the events after `step`, atomically; usually needs no free disk space."""
    if not path.exists():
        return
    retained: list[bytes] = []
    unusable, prefix = [], True
    for line in iter_json_lines(path, Event) if step else ():
        if line.row is None or not line.content.endswith(b"\n"):  # corrupt, or cut off at the end
            unusable.append(line.number)
        elif line.row["step"] <= step:
            prefix = prefix and line.number == len(retained) + 1
            retained.append(line.content)
    if unusable:
        warn(unusable_lines(path, unusable))
    if prefix:
        os.truncate(path, sum(map(len, retained)))
    else:
        write_atomic(path, b"".join(retained))
