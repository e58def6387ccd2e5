"""Settings of runs side by side, with differences."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.config import Experiment, flatten


class Setting(NamedTuple):
    """One value of the configuration: its default, and what each run has."""

    name: str
    default: object
    values: list

    @property
    def changed(self) -> bool:
        """Whether any run has another value than the default."""
        return any(value != self.default for value in self.values)

    @property
    def differs(self) -> bool:
        """Whether the runs have different values."""
        return any(value != self.values[0] for value in self.values)


def settings(experiments: Sequence[Experiment]) -> list[Setting]:
    """Every value of the configurations, by its name: "optimizer.warmup_steps"."""
    default = flatten(Experiment())
    each = [flatten(experiment) for experiment in experiments]
    return [Setting(name, value, [one[name] for one in each]) for name, value in default.items()]
