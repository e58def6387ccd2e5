"""Compare the settings of runs."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.config import Experiment
from experiments.config_io import flatten


class Setting(NamedTuple):
    """A setting of the config: its default, and the value of each run."""

    name: str
    default: object
    values: list

    @property
    def changed(self) -> bool:
        """Whether the value of any run differs from the default."""
        return any(value != self.default for value in self.values)

    @property
    def differs(self) -> bool:
        """Whether the runs have different values."""
        return any(value != self.values[0] for value in self.values)


def settings(experiments: Sequence[Experiment]) -> list[Setting]:
    """All settings of the configs, by name: "optimizer.warmup_steps"."""
    default = flatten(Experiment())
    run_values = [flatten(experiment) for experiment in experiments]
    return [
        Setting(name, value, [values[name] for values in run_values])
        for name, value in default.items()
    ]
