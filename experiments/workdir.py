"""A run's folder: config, vocabulary, checkpoints, logs.

config.json        the resolved settings, and the commit of the code
tokenizer.model    or tokenizer.source.model and tokenizer.target.model
shortlist.npz      lexical shortlist of an imported run
checkpoints/       Orbax checkpoints
base/              frozen base parameters of a LoRA run, as one checkpoint
metrics.jsonl      one event per line
tensorboard/       the same events for TensorBoard
environment.jsonl  one line per start: machine, versions, commit
translations.jsonl translations of the test split, one sentence per line
report.html        all of this as a page
lock               held while a process trains here; lock.owner names it
heartbeats/        one file per process, if there are several
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import msgspec
from jax.sharding import Mesh

from data.atomic_write import write_atomic
from data.errors import DataError
from data.json_file import read_json
from data.printable import excerpt
from data.vocabulary import Vocabulary
from decode import shortlist
from experiments.config import Experiment
from experiments.config_io import to_experiment
from experiments.console import log
from experiments.git_commit import commit_of_the_code
from experiments.lora import BASE, check_base, read_base, trainable
from experiments.resume_rules import check_changes
from experiments.sizes import check_stored_sizes
from model import ConfigError, Transformer
from model.families import build_model
from model.sharding import make_mesh
from train.checkpoint import CheckpointError, CheckpointManager
from train.merge_adapters import make_merge_fn
from train.multihost import broadcast_from_primary
from train.state import abstract_params

# What an attempt that saved no checkpoint leaves behind; TensorBoard's files stay, out of date.
ATTEMPT_FILES = (
    "metrics.jsonl",
    "environment.jsonl",
    "translations.jsonl",
    "report.html",
    "config.json",
)


class _ConfigFile(msgspec.Struct):
    """What config.json holds; the settings are typed by `to_experiment`."""

    experiment: dict[str, Any]
    commit: str | None = None


def has_checkpoint(workdir: Path) -> bool:
    """Whether a run saved a checkpoint there: until then its settings may change."""
    return bool(CheckpointManager(workdir / "checkpoints").steps())


def read_config(workdir: Path, flag: str = "workdir") -> Experiment:
    """The experiment of a run's folder, which the flag names.

    Raises ConfigError, which names file and setting, if it has none or a wrong one.
    """
    file = workdir / "config.json"
    if not os.path.lexists(file):
        raise ConfigError(f"--{flag}={workdir} holds no run: {file} is missing")
    try:
        tree = read_json(file, _ConfigFile).experiment
        for group in ("model", "data", "optimizer", "train", "search"):
            if group not in tree:
                raise ConfigError(f"config.{group} is missing")
        if isinstance(tree["data"], dict):
            tree["data"].setdefault("packing", False)  # runs from before there was any
        return to_experiment(tree)
    except DataError as error:
        raise ConfigError(str(error)) from None
    except ConfigError as error:
        raise ConfigError(f"{file}: {excerpt(str(error))}") from None


def read_previous(workdir: Path) -> Experiment | None:
    """The experiment that the checkpoints in `workdir` are of; None where there are none.

    Raises ConfigError where it cannot be read, and where config.json is another program's.
    """
    file = workdir / "config.json"
    if not os.path.lexists(file):
        return None
    if has_checkpoint(workdir):
        return read_config(workdir)
    try:
        read_json(file, _ConfigFile)
    except DataError as error:
        raise ConfigError(f"{error}: it is not the file of a run; choose another folder") from None
    return None


def read_checkpoint_settings(workdir: Path) -> Experiment | None:
    """The experiment that the newest checkpoint with a readable `meta` was saved with.

    None if it does not say so: those of earlier versions do not. All processes call it together.
    """
    with CheckpointManager(workdir / "checkpoints") as checkpoints:
        for step in reversed(broadcast_from_primary(checkpoints.steps())):
            try:
                return settings_of(checkpoints.meta(step))
            except CheckpointError:
                continue  # resuming reports it
    return None


def settings_of(meta: dict) -> Experiment | None:
    """The experiment in a checkpoint's `meta`; None where there is none that can be read."""
    try:
        return to_experiment(json.loads(meta["experiment"]))
    except (KeyError, TypeError, ValueError):
        return None


def read_commit(workdir: Path) -> str | None:
    """The commit that a run began with, if that was known. Raises DataError."""
    return read_json(workdir / "config.json", _ConfigFile).commit


def write_config(workdir: Path, experiment: Experiment) -> None:
    """Write config.json, whole or not at all; `commit` stays the one that the run began with."""
    try:
        commit = read_commit(workdir)
    except DataError:
        commit = commit_of_the_code()
    text = json.dumps({"experiment": asdict(experiment), "commit": commit}, indent=2)
    write_atomic(workdir / "config.json", f"{text}\n".encode())


def clear_attempt(workdir: Path) -> None:
    """Remove what an earlier attempt left that saved no checkpoint: it must not affect this one."""
    (workdir / shortlist.NAME).unlink(missing_ok=True)  # of an import, which writes no config.json
    if (workdir / "config.json").exists():
        for name in ATTEMPT_FILES:
            (workdir / name).unlink(missing_ok=True)
        shutil.rmtree(workdir / BASE, ignore_errors=True)


def check_folder(workdir: Path, flag: str = "workdir") -> None:
    """Raise ConfigError if `workdir`, which the flag names, cannot be a folder to write to."""
    there = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"--{flag}={workdir}: {there} is not a folder that can be written to")


def check_same_run(
    workdir: Path,
    experiment: Experiment,
    allow_batch_change: bool = False,
    old: Experiment | None = None,
) -> None:
    """Raise ConfigError, naming the first difference, if the workdir is another experiment's.

    A run that never saved a checkpoint has nothing to lose: its settings may change. The size of
    batches may with `allow_batch_change`. `old` is what it is compared with, by default the
    settings in config.json.
    """
    if not has_checkpoint(workdir):
        return
    if not os.path.lexists(workdir / "config.json"):
        raise ConfigError(
            f"--workdir={workdir} has checkpoints, but config.json is missing: cannot tell "
            "which run they belong to; choose another folder"
        )
    old = old or read_config(workdir)
    check_changes(old, experiment, allow_batch_change, f"--workdir={workdir}")


def check_vocabulary(workdir: Path, vocabulary: Vocabulary, meta: dict) -> None:
    """Raise ConfigError if a checkpoint with this `meta` was trained with another vocabulary."""
    if meta.get("vocabulary") != vocabulary.digest():
        raise ConfigError(
            f"the vocabulary in {workdir} is not the one its checkpoints were trained with: "
            "put the run's own tokenizer.model back"
        )


def check_text(workdir: Path, digests: dict[str, str], meta: dict) -> None:
    """Raise ConfigError if a checkpoint with this `meta` was saved with the text of other splits.

    `digests` are what the checkpoint's `meta` has of them. Earlier versions stored that of the
    training text only, and what is not stored is not compared.
    """
    names = {"text": "training", "valid_text": "validation", "test_text": "test"}
    for key, name in names.items():
        stored = key in meta or key == "text"
        if stored and meta.get(key) != digests[key]:
            raise ConfigError(
                f"the {name} text is not the one that the run in {workdir} began with: "
                "give it that text again, or choose another folder"
            )


def warn_unranked(checkpoints: CheckpointManager, which: str) -> None:
    """Report checkpoints that `which` should compare but cannot: another one may be chosen."""
    unranked = checkpoints.unranked() if "best" in which else []
    if unranked:
        steps = ", ".join(map(str, unranked))
        log(
            f"warning: {checkpoints.folder}: the metrics of step {steps} are missing or corrupt, "
            f"so {which} is chosen without it"
        )


@dataclass(frozen=True)
class LoadedModel:
    """A model as a workdir has it, ready to decode."""

    experiment: Experiment
    vocabulary: Vocabulary
    model: Transformer
    params: dict
    mesh: Mesh
    steps: tuple[int, ...]  # of its checkpoint, or of those that are averaged

    @property
    def step(self) -> int | list[int]:
        """The one step, or all of them."""
        return self.steps[0] if len(self.steps) == 1 else list(self.steps)


def load(workdir: Path, checkpoint: str = "best", mesh: Mesh | None = None) -> LoadedModel:
    """The model of `checkpoint` (train/checkpoint_spec.py), on `mesh` or on this process's devices.

    Where the mesh spans processes, all of them load it together. Adapters are merged into the
    model that they are of, and so are they before there is a mean of several.
    Raises ConfigError, DataError or CheckpointError for a part that is missing or broken.
    """
    experiment = read_config(workdir)
    vocabulary = Vocabulary.load(workdir)
    mesh = mesh or make_mesh(devices=jax.local_devices())
    model = build_model(experiment.model)
    with CheckpointManager(workdir / "checkpoints") as checkpoints:
        warn_unranked(checkpoints, checkpoint)
        steps = checkpoints.resolve(checkpoint).steps
        meta = checkpoints.meta(steps[-1])
        check_vocabulary(workdir, vocabulary, meta)
        check_stored_sizes(workdir, experiment, steps[-1])
        learns = trainable(experiment, model)
        base = read_base(workdir, learns, mesh)
        check_base(workdir, experiment, meta)
        merge = make_merge_fn(learns, mesh)
        params = checkpoints.restore_params(
            checkpoint, abstract_params(learns, mesh), lambda trained: merge(trained, base)
        )
    return LoadedModel(experiment, vocabulary, model, params, mesh, steps)
