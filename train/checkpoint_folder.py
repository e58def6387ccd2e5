"""Checkpoint folder: list the checkpoints of a run, rank them by metrics, resolve their names.

Each step has a folder. Its metrics rank it as "best"; a step with unreadable metrics is not ranked.
"""

import itertools
from pathlib import Path

from train import checkpoint_items
from train.checkpoint_spec import CheckpointError, CheckpointSpec, ResolvedCheckpoint, resolve


class CheckpointFolder:
    """The checkpoints of one folder, by step and by `best_metric`."""

    def __init__(self, folder: str | Path, best_metric: str = "bleu"):
        self.folder = Path(folder).absolute()
        self.best_metric = best_metric

    def metrics(self, spec: CheckpointSpec) -> dict[str, float] | None:
        """The metrics of the checkpoint, if they include `best_metric`."""
        return self._metrics_of(self._single_step(spec))

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        folders = (path for path in self.folder.iterdir() if path.is_dir())
        return sorted(int(path.name) for path in folders if path.name.isdecimal())

    def best_step(self) -> int | None:
        """The step with the highest `best_metric`, the latest if several; None if none has it."""
        return next(iter(self._ranked()), None)

    def unranked(self) -> list[int]:
        """The steps whose metrics are lost, so that "best" ignores them."""
        lost = lambda step: checkpoint_items.lost_metrics(self.folder / str(step), self.best_metric)  # noqa: E731
        return [step for step in self.steps() if lost(step)]

    def best_first(self) -> list[int]:
        """All steps, highest `best_metric` first; then those without it, newest first."""
        ranked = self._ranked()
        return ranked + [step for step in reversed(self.steps()) if step not in ranked]

    def resolve(self, spec: CheckpointSpec) -> ResolvedCheckpoint:
        """Resolve a checkpoint name to steps and weights (train/checkpoint_spec.py)."""
        try:
            return resolve(spec, self.steps(), self._ranked())
        except CheckpointError as error:
            raise CheckpointError(f"{self.folder}: {error}") from None

    def _single_step(self, spec: CheckpointSpec) -> int:
        steps = self.resolve(spec).steps
        if len(steps) > 1:
            raise CheckpointError(f"{self.folder}: only weights can be averaged, not {spec}")
        return steps[0]

    def _ranked(self) -> list[int]:
        """The steps with a score, best first; among equals, the latest first."""
        step_metrics = ((self._metrics_of(step), step) for step in self.steps())
        scored = [(metrics[self.best_metric], step) for metrics, step in step_metrics if metrics]
        return [step for _, step in sorted(scored, reverse=True)]

    def _quarantine(self) -> None:
        for corrupt in self._unlisted():
            names = (f"{corrupt.name}.corrupt{f'.{n}' * (n > 1)}" for n in itertools.count(1))
            corrupt.rename(next(p for p in map(corrupt.with_name, names) if not p.exists()))

    def _unlisted(self) -> list[Path]:
        """Folders of checkpoints with unreadable metrics, which Orbax cannot list."""
        unreadable = [step for step in self.steps() if self._metrics_of(step) is None]
        folders = [self.folder / str(step) for step in unreadable]
        return [folder for folder in folders if (folder / "metrics").is_dir()]

    def _non_folders(self) -> list[str]:
        """Files and dangling links that are named like a step."""
        entries = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(str(p) for p in entries if p.name.isdecimal() and not p.is_dir())

    def _metrics_of(self, step: int) -> dict[str, float] | None:
        return checkpoint_items.metrics(self.folder / str(step), self.best_metric)
