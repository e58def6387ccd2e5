"""What a run left in its folder, read back for its report."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.corpus import DataError
from experiments import environment, translations
from experiments.config import Experiment
from experiments.workdir import read_commit, read_config
from model import ConfigError


@dataclass(frozen=True)
class Run:
    """A run as its folder tells it; `damaged` says which lines could not be read."""

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

    def rows(file: str, whole: Callable[[dict], bool]) -> list[dict]:
        return _read(workdir / file, whole, damaged)

    events = rows("metrics.jsonl", _is_event)
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
        rows(environment.FILE, lambda row: "date" in row),
        rows(translations.FILE, _is_translation),
        damaged,
    )


def _read(file: Path, whole: Callable[[dict], bool], damaged: list[str]) -> list[dict]:
    """The `whole` rows of a file of JSON lines, if it is there; the others are told `damaged`."""
    found = []
    lines = file.read_bytes().splitlines() if file.exists() else []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:  # also what is not UTF-8
            row = None
        if isinstance(row, dict) and whole(row):
            found.append(row)
        else:
            damaged.append(f"{file}, line {number}: damaged, and left out")
    return found


def _is_event(row: dict) -> bool:
    return isinstance(row.get("step"), int) and isinstance(row.get("split"), str)


def _is_translation(row: dict) -> bool:
    texts = all(isinstance(row.get(key), str) for key in ("source", "reference", "hypothesis"))
    return texts and isinstance(row.get("score"), int | float)
