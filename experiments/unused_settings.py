"""Report settings without effect; flags without effect are errors."""

from collections.abc import Collection

from experiments.config import Experiment
from experiments.config_io import flatten
from experiments.console import log
from model import ConfigError

_MADE_ABSOLUTE = {"data.path", "init_from"}
_FROM_VOCABULARY = {"model.vocab_size", "model.target_vocab_size"}


def report_unused_settings(
    requested: Experiment, used: Experiment, from_flags: Collection[str]
) -> None:
    """Compare the requested settings with those that the run uses.

    `from_flags` are the names that flags set ("model.d_ff"): raises ConfigError if one has no
    effect. Ignored non-default values of the config file are reported in one line.
    """
    values, used_values, defaults = flatten(requested), flatten(used), flatten(Experiment())
    names = values.keys() - _MADE_ABSOLUTE - _FROM_VOCABULARY
    ignored = [name for name in values if name in names and values[name] != used_values[name]]
    cause = _cause(used)
    for name in ignored:
        if name in from_flags:
            # The training method of a ready-made vocabulary is irrelevant.
            reason = f"sets it to {used_values[name]!r}"
            reason = "is ready-made" if name == "data.tokenizer" else reason
            raise ConfigError(
                f"--config.{name}={values[name]} has no effect: {cause} {reason}; leave it out"
            )
    reported = [f"{name}={values[name]}" for name in ignored if values[name] != defaults[name]]
    if reported:
        log(f"{cause} overrides these settings, which have no effect: {', '.join(reported)}")


def _cause(used: Experiment) -> str:
    if used.init_from:
        return f"config.init_from={used.init_from}"
    return f"config.data.tokenizer_path={used.data.tokenizer_path}"
