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
    """A run as its folder tells it; `damaged` says which lines were left out."""

    name: str
    workdir: Path
    experiment: Experiment
    commit: str | None  # that it began with
    events: list[dict]
    starts: list[dict]
    translations: list[dict]
    damaged: list[str]

    def of(self, split: str) -> list[dict]:
        """The events of one split."""
        return [event for event in self.events if event["split"] == split]


def read_runs(workdirs: Sequence[Path]) -> list[Run]:
    """The runs of these folders, named apart. Raises ConfigError or DataError, as `read_run`."""
    places = [workdir.resolve() for workdir in workdirs]
    for number, place in enumerate(places):
        if place in places[:number]:
            raise ConfigError(f"--workdir={workdirs[number]} is named twice: name each run once")
    names = [place.name for place in places]
    unlike = [
        name if names.count(name) == 1 else str(workdir)
        for name, workdir in zip(names, workdirs, strict=True)
    ]
    return [read_run(*each) for each in zip(workdirs, unlike, strict=True)]


def read_run(workdir: Path, name: str = "") -> Run:
    """The run of a folder. Raises ConfigError where there is none, DataError where it is empty."""
    experiment = read_config(workdir)
    commit = read_commit(workdir)
    damaged: list[str] = []

    def rows(file: str, kind: type[msgspec.Struct]) -> list[dict]:
        found = read_json_lines(workdir / file, kind)
        if found.unusable:
            damaged.append(unusable_lines(workdir / file, found.unusable))
        return found.rows

    events = rows(metrics.FILE, metrics.Event)
    if not events and damaged:
        raise DataError(f"there is nothing to report: {damaged[0]}")
    if not events:
        raise DataError(
            f"--workdir={workdir}: metrics.jsonl has no event yet: there is nothing to report "
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
        damaged,
    )
