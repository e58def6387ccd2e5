"""What a run measured, on disk: metrics.jsonl for programs, TensorBoard's event files for eyes."""

import json
import math
from pathlib import Path

from data.files import replace_file


class MetricsWriter:
    """Appends events to folder/metrics.jsonl and to folder/tensorboard.

    An event is one line, {"step", "split", ...}, with floats in full precision. A run that resumes
    from `step` first drops the events of later steps, which it will measure again; 0 starts anew.
    """

    def __init__(self, folder: str | Path, step: int = 0):
        # Only who writes waits for it: where PyTorch is installed, it imports that.
        from tensorboardX import SummaryWriter

        self.path = Path(folder) / "metrics.jsonl"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _drop_after(self.path, step)
        self._lines = self.path.open("a", encoding="utf-8")
        # TensorBoard leaves out earlier files' events from this step on.
        self._board = SummaryWriter(str(Path(folder) / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, split: str, values: dict[str, float | str]) -> None:
        """One event of a split ("train", "valid" or "test"); numbers are drawn, words only kept."""
        known = {name: _or_none(value) for name, value in values.items()}
        self._lines.write(json.dumps({"step": step, "split": split, **known}) + "\n")
        self._lines.flush()
        for name, value in values.items():
            if isinstance(value, int | float):
                self._board.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Puts everything on disk."""
        self._lines.close()
        self._board.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *_) -> None:
        self.close()


def read_metrics(folder: str | Path) -> list[dict]:
    """The events of folder/metrics.jsonl in order, but for lines that are damaged."""
    return [json.loads(line) for line in _whole_lines(Path(folder) / "metrics.jsonl")]


def _drop_after(path: Path, step: int) -> None:
    """Keeps the events up to `step`, by one rename: there is always a whole file."""
    if not path.exists():
        return
    kept = [line for line in _whole_lines(path) if json.loads(line)["step"] <= step]
    replace_file(path, "".join(kept if step else ()).encode())


def _or_none(value):
    """JSON has no NaN and no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _whole_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    return [line for line in lines if line.endswith("\n") and _is_event(line)]


def _is_event(line: str) -> bool:
    try:
        return "step" in json.loads(line)
    except (ValueError, TypeError):  # damaged by other hands: not worth a run
        return False
