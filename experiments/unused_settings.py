"""Report settings without effect; flags without effect are errors."""

from collections.abc import Callable, Collection
from typing import Any

from experiments.config import Experiment
from experiments.config_io import flatten
from experiments.console import log
from model import ConfigError
from model.positions import POSITIONS

_MADE_ABSOLUTE = {"data.path", "init_from"}
_FROM_VOCABULARY = {"model.vocab_size", "model.target_vocab_size"}
_POSITIONS = "model.positions"
_USED_WITH: dict[str, tuple[str, Callable[[Any], Any]]] = {  # of some values of another setting
    "data.path": ("data.kind", lambda kind: kind != "demo"),
    "data.seed": ("data.kind", lambda kind: kind == "demo"),
    "lora.alpha": ("lora.rank", bool),
    "lora.projections": ("lora.rank", bool),
    "model.max_length": (_POSITIONS, lambda kind: POSITIONS[kind].table),
    "model.relative_num_buckets": (_POSITIONS, lambda kind: POSITIONS[kind].bias),
    "model.relative_max_distance": (_POSITIONS, lambda kind: POSITIONS[kind].bias),
}


def report_unused_settings(
    requested: Experiment, used: Experiment, from_flags: Collection[str]
) -> None:
    """Compare the requested settings with those that the run uses.

    `from_flags` are the names that flags set ("model.d_ff"): raises ConfigError if one has no
    effect. Ignored non-default values of the config file are reported in one line.
    """
    values, used_values, defaults = flatten(requested), flatten(used), flatten(Experiment())
    for name, (other, uses) in _USED_WITH.items():
        changed = name in from_flags and values[name] != defaults[name]
        if changed and not uses(used_values[other]):
            raise ConfigError(
                f"--config.{name}={values[name]} has no effect with config.{other}="
                f"{used_values[other]}: leave it out, or change config.{other}"
            )
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
