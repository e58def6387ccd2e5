"""Read a run's files for its report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from data.errors import DataError
from data.json_lines import read_json_lines, unusable_lines
from experiments import environment, translations
from experiments.config import Experiment
from experiments.workdir import read_commit, read_config
from model import ConfigError
from train import metrics


@dataclass(frozen=True)
class Run:
    """A run as read from its folder; `corrupt` lists messages about unusable lines."""

    name: str
    workdir: Path
    experiment: Experiment
    commit: str | None  # of the code at the start of the run
    events: list[dict]
    starts: list[dict]
    translations: list[dict]
    corrupt: list[str]

    def events_of(self, name: str) -> list[dict]:
        """The events of one name: train, valid, test, spike or rollback."""
        return [event for event in self.events if event["event"] == name]


def read_runs(workdirs: Sequence[Path]) -> list[Run]:
    """Read the runs of these folders, with unique names. Raises like `read_run`."""
    folders = [workdir.resolve() for workdir in workdirs]
    for number, folder in enumerate(folders):
        if folder in folders[:number]:
            raise ConfigError(f"--workdir={workdirs[number]} is given twice: give each run once")
    names = [folder.name for folder in folders]
    unique_names = [
        name if names.count(name) == 1 else str(workdir)
        for name, workdir in zip(names, workdirs, strict=True)
    ]
    return [read_run(*arguments) for arguments in zip(workdirs, unique_names, strict=True)]


def read_run(workdir: Path, name: str = "") -> Run:
    """Read the run of a folder. Raises ConfigError without a run, DataError without events."""
    experiment = read_config(workdir)
    commit = read_commit(workdir)
    corrupt: list[str] = []

    def rows(file: str, struct: type[msgspec.Struct]) -> list[dict]:
        content = read_json_lines(workdir / file, struct)
        if content.unusable:
            corrupt.append(unusable_lines(workdir / file, content.unusable))
        return content.rows

    events = rows(metrics.FILE, metrics.Event)
    if not events and corrupt:
        raise DataError(f"nothing to report: {corrupt[0]}")
    if not events:
        raise DataError(
            f"--workdir={workdir}: metrics.jsonl has no event yet: nothing to report "
            "before config.train.log_every updates"
        )
    return Run(
        name or workdir.resolve().name,
        workdir,
        experiment,
        commit,
        events,
        rows(environment.FILE, environment.Start),
        rows(translations.FILE, translations.Translation),
        corrupt,
    )
