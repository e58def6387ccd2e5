"""Report settings without effect; such flags are errors."""

from collections.abc import Collection

from experiments.config import Experiment
from experiments.config_io import flatten
from experiments.console import log
from model import ConfigError

_MADE_ABSOLUTE = {"data.path", "init_from"}
_FROM_VOCABULARY = {"model.vocab_size", "model.target_vocab_size"}


def report_unused_settings(asked: Experiment, used: Experiment, given: Collection[str]) -> None:
    """Compare the requested settings with those that the run uses.

    `given` are the names that flags set ("model.d_ff"): raises ConfigError if one has no effect.
    Ignored non-default values of the config file are reported in one line.
    """
    requested, actual, default = flatten(asked), flatten(used), flatten(Experiment())
    names = requested.keys() - _MADE_ABSOLUTE - _FROM_VOCABULARY
    ignored = [name for name in requested if name in names and requested[name] != actual[name]]
    cause = _cause(used)
    for name in ignored:
        if name in given:
            # How a ready-made vocabulary was learned is irrelevant.
            instead = "" if name == "data.tokenizer" else f" sets it to {actual[name]!r}"
            raise ConfigError(
                f"--config.{name}={requested[name]} has no effect: "
                f"{cause}{instead or ' is ready-made'}; leave it out"
            )
    reported = [f"{name}={requested[name]}" for name in ignored if requested[name] != default[name]]
    if reported:
        log(f"{cause} decides these, so they have no effect: {', '.join(reported)}")


def _cause(used: Experiment) -> str:
    if used.init_from:
        return f"config.init_from={used.init_from}"
    return f"config.data.tokenizer_path={used.data.tokenizer_path}"
