"""Convert an experiment config to and from ConfigDicts, flags and JSON."""

import math
import reprlib
from dataclasses import asdict, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ml_collections import config_dict

from experiments.config import Experiment
from experiments.did_you_mean import did_you_mean
from model import ConfigError


def flatten(experiment: Experiment) -> dict[str, Any]:
    """Return all settings by dotted name: "model.d_ff"."""
    values: dict[str, Any] = {}
    for name, value in asdict(experiment).items():
        if isinstance(value, dict):
            values |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            values[name] = value
    return values


def default_config() -> config_dict.ConfigDict:
    """Return the default config, for a config file's `get_config` and flags to change."""
    return to_config_dict(Experiment())


def to_config_dict(experiment: Experiment) -> config_dict.ConfigDict:
    """Convert to a ConfigDict in which a flag of the right type can override every value."""
    config = config_dict.ConfigDict(asdict(experiment), convert_dict=True)
    for group in fields(experiment):
        section = getattr(experiment, group.name)
        if not is_dataclass(section):
            continue
        for name, hint in get_type_hints(type(section)).items():
            if getattr(section, name) is None:  # a flag needs the type behind None
                (value_type,) = (a for a in get_args(hint) if a is not NoneType)
                config[group.name][name] = config_dict.placeholder(value_type)
    return config


def to_experiment(tree: Any) -> Experiment:
    """Convert a ConfigDict, or the content of config.json, to an Experiment.

    Raises ConfigError for an unknown name (with the nearest one) or a value of the wrong type.
    """
    if isinstance(tree, config_dict.ConfigDict):
        tree = tree.to_dict()
    return _build(Experiment, tree, "")


def _build(section: type, tree: Any, prefix: str) -> Any:
    if not isinstance(tree, dict):
        name = f"config.{prefix}".rstrip(".")
        raise ConfigError(f"{name}={_shown(tree)} must be an object of settings")
    hints = get_type_hints(section)
    for name in tree:
        if name not in hints:
            raise ConfigError(f"config.{prefix}{name} is unknown{did_you_mean(name, hints)}")
    values = {}
    for name, value in tree.items():
        hint = hints[name]
        if isinstance(hint, type) and is_dataclass(hint):
            values[name] = _build(hint, value, f"{prefix}{name}.")
        else:
            values[name] = _typed(value, hint, f"{prefix}{name}")
    return section(**values)


def _typed(value: Any, hint: Any, name: str) -> Any:
    if get_origin(hint) is Literal:
        classes = {type(choice) for choice in get_args(hint)}
    else:
        classes = set(get_args(hint) if isinstance(hint, UnionType) else (hint,))
    mismatch = isinstance(value, bool) and bool not in classes
    if isinstance(value, int) and not -(2**63) <= value < 2**63:  # float(value) might overflow
        raise ConfigError(f"config.{name} does not fit into 64 bits")
    if float in classes and isinstance(value, int) and not mismatch:
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"config.{name}={value} is not finite")
    if mismatch or not isinstance(value, tuple(classes)):
        names = " or ".join(sorted(c.__name__ for c in classes if c is not NoneType))
        raise ConfigError(f"config.{name}={_shown(value)} must be {names}")
    return value


def _shown(value: Any) -> str:
    """Format a value as in JSON, shortened if it is long or nested."""
    return "null" if value is None else reprlib.repr(value)
