"""Report settings without effect; such flags are errors."""

from collections.abc import Collection

from experiments.config import Experiment, flatten
from experiments.console import log
from model import ConfigError

_MADE_ABSOLUTE = {"data.path", "init_from"}
_FROM_VOCABULARY = {"model.vocab_size", "model.target_vocab_size"}


def report_unused_settings(asked: Experiment, used: Experiment, given: Collection[str]) -> None:
    """Compare the settings that were asked for with those that the run uses.

    `given` are the names that flags set: "model.d_ff". Raises ConfigError for one of these. A value
    of the config file that is not the default is reported in one line.
    """
    wanted, actual, default = flatten(asked), flatten(used), flatten(Experiment())
    names = wanted.keys() - _MADE_ABSOLUTE - _FROM_VOCABULARY
    lost = [name for name in wanted if name in names and wanted[name] != actual[name]]
    cause = _cause(used)
    for name in lost:
        if name in given:
            # Of a ready-made vocabulary nobody asks how it was learned.
            instead = "" if name == "data.tokenizer" else f" sets it to {actual[name]!r}"
            raise ConfigError(
                f"--config.{name}={wanted[name]} has no effect: "
                f"{cause}{instead or ' is ready-made'}; leave it out"
            )
    reported = [f"{name}={wanted[name]}" for name in lost if wanted[name] != default[name]]
    if reported:
        log(f"{cause} decides these, so they have no effect: {', '.join(reported)}")


def _cause(used: Experiment) -> str:
    if used.init_from:
        return f"config.init_from={used.init_from}"
    return f"config.data.tokenizer_path={used.data.tokenizer_path}"
