"""Workdir: the folder of a run, with config, vocabulary, checkpoints and logs.

config.json        the resolved settings, and the commit of the code
tokenizer.model    or tokenizer.source.model and tokenizer.target.model
shortlist.npz      lexical shortlist of an imported run
checkpoints/       Orbax checkpoints
base/              frozen base parameters of a LoRA run, as one checkpoint
metrics.jsonl      one event per line
tensorboard/       the same events for TensorBoard
environment.jsonl  one line per start: machine, versions, commit
translations.jsonl translations of the test split, one sentence per line
report.html        report of the run as a web page
lock               locked while a process trains here; lock.owner names it
heartbeats/        one file per process of multi-process training
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import jax
import msgspec
from jax.sharding import Mesh

from data.atomic_write import write_atomic
from data.errors import DataError
from data.json_file import read_json
from data.printable import excerpt
from data.vocabulary import VOCABULARY_FILES, Vocabulary
from decode import shortlist
from experiments.config import Experiment
from experiments.config_io import to_experiment
from experiments.console import log
from experiments.git_commit import code_commit
from experiments.lora import BASE, check_base, read_base, trainable
from experiments.resume_rules import check_changes
from experiments.sizes import check_stored_sizes
from model import ConfigError
from model.families import build_model
from model.family import Family
from model.sharding import make_mesh
from train.checkpoint import CheckpointError, CheckpointManager
from train.merge_adapters import make_merge_fn
from train.multihost import broadcast_from_primary
from train.state import abstract_params

# Files of a start that saved no checkpoint, besides TensorBoard's.
ATTEMPT_FILES = (
    "metrics.jsonl",
    "environment.jsonl",
    "translations.jsonl",
    "report.html",
    "config.json",
)
_FILES = (*ATTEMPT_FILES, *VOCABULARY_FILES, shortlist.NAME, "lock", "lock.owner")
_FOLDERS = ("checkpoints", BASE, "tensorboard", "heartbeats")


class _ConfigFile(msgspec.Struct):
    """The content of config.json; `to_experiment` checks the types of the settings."""

    experiment: dict[str, Any]
    commit: str | None = None


def has_checkpoint(workdir: Path) -> bool:
    """Whether a run saved a checkpoint there; until then, all its settings may change."""
    return bool(CheckpointManager(workdir / "checkpoints").steps())


def read_config(workdir: Path, flag: str = "workdir") -> Experiment:
    """Read the experiment of a run's folder, which `flag` names.

    Raises ConfigError, which names file and setting, if it is missing or invalid.
    """
    file = workdir / "config.json"
    if not os.path.lexists(file):
        raise ConfigError(f"--{flag}={workdir} holds no run: {file} is missing")
    try:
        tree = read_json(file, _ConfigFile).experiment
        for group in ("model", "data", "optimizer", "train", "search"):
            if group not in tree:
                raise ConfigError(f"config.{group} is missing")
        return to_experiment(tree)
    except DataError as error:
        raise ConfigError(str(error)) from None
    except ConfigError as error:
        raise ConfigError(f"{file}: {excerpt(str(error))}") from None


def read_previous(workdir: Path) -> Experiment | None:
    """Read the experiment of the run whose checkpoints are in `workdir`; None without checkpoints.

    Raises ConfigError if it is unreadable, or if config.json belongs to another program.
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
    """Read the experiment of the newest checkpoint with a readable `meta`; None if it is imported.

    All processes call it together. Raises ConfigError if it is invalid.
    """
    with CheckpointManager(workdir / "checkpoints") as checkpoints:
        for step in reversed(broadcast_from_primary(checkpoints.steps())):
            try:
                meta = checkpoints.meta(step)
            except CheckpointError:
                continue  # resuming reports it
            return stored_experiment(meta) if "experiment" in meta else None
    return None


def stored_experiment(meta: dict) -> Experiment:
    """The experiment in the `meta` of a training checkpoint. Raises ConfigError."""
    return to_experiment(json.loads(meta["experiment"]))


def read_commit(workdir: Path) -> str | None:
    """Read the commit of the run's first start, or None if unknown. Raises DataError."""
    return read_json(workdir / "config.json", _ConfigFile).commit


def write_config(workdir: Path, experiment: Experiment) -> None:
    """Write config.json atomically; `commit` remains that of the first start."""
    try:
        commit = read_commit(workdir)
    except DataError:
        commit = code_commit()
    text = json.dumps({"experiment": asdict(experiment), "commit": commit}, indent=2)
    write_atomic(workdir / "config.json", f"{text}\n".encode())


def clear_attempt(workdir: Path) -> None:
    """Remove the files of an earlier start that saved no checkpoint, before a new start."""
    # The shortlist of an unfinished import, which has no config.json.
    (workdir / shortlist.NAME).unlink(missing_ok=True)
    if (workdir / "config.json").exists():
        for name in ATTEMPT_FILES:
            (workdir / name).unlink(missing_ok=True)
        shutil.rmtree(workdir / BASE, ignore_errors=True)


def check_folder(workdir: Path, flag: str = "workdir") -> None:
    """Raise ConfigError if `workdir`, which `flag` names, is not a writable folder."""
    existing = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ConfigError(f"--{flag}={workdir}: {existing} is not a writable folder")


def check_run_folder(workdir: Path) -> None:
    """Raise ConfigError if a run cannot be in `workdir`: see `check_folder`.

    Its own files must be absent or regular, since opening a pipe would block forever. Its own
    folders must be absent or folders: only the first save would notice a file named checkpoints.
    """
    check_folder(workdir)
    for name in _FILES:
        if (workdir / name).exists() and not (workdir / name).is_file():
            _reject(workdir / name, "regular file")
    for name in _FOLDERS:
        if os.path.lexists(workdir / name) and not (workdir / name).is_dir():
            _reject(workdir / name, "folder")
    checkpoints = workdir / "checkpoints"
    if checkpoints.exists() and not os.access(checkpoints, os.W_OK):
        _reject(checkpoints, "writable folder")


def _reject(path: Path, kind: str) -> NoReturn:
    raise ConfigError(f"{path} is not a {kind}: remove it, or choose another --workdir")


def check_same_run(
    workdir: Path,
    experiment: Experiment,
    allow_batch_change: bool = False,
    previous: Experiment | None = None,
) -> None:
    """Raise ConfigError, naming the first difference, if the workdir is another experiment's.

    All settings of a run without a checkpoint may change; those of the batches may change with
    `allow_batch_change`. `previous` are the settings to compare with, by default those in
    config.json.
    """
    if not has_checkpoint(workdir):
        return
    if not os.path.lexists(workdir / "config.json"):
        raise ConfigError(
            f"--workdir={workdir} has checkpoints, but config.json is missing: cannot tell "
            "which run they belong to; choose another folder"
        )
    previous = previous or read_config(workdir)
    check_changes(previous, experiment, allow_batch_change, f"--workdir={workdir}")


def check_vocabulary(workdir: Path, vocabulary: Vocabulary, meta: dict) -> None:
    """Raise ConfigError if a checkpoint with this `meta` was trained with another vocabulary."""
    if meta.get("vocabulary") != vocabulary.digest():
        raise ConfigError(
            f"the vocabulary in {workdir} is not the one its checkpoints were trained with: "
            "restore the tokenizer.model of the run"
        )


def check_text(workdir: Path, digests: dict[str, str], meta: dict) -> None:
    """Raise ConfigError if the checksums of the text in a checkpoint's `meta` are not `digests`."""
    names = {"text": "training", "valid_text": "validation", "test_text": "test"}
    for key, name in names.items():
        if meta.get(key) != digests[key]:
            raise ConfigError(
                f"the {name} text is not the one that the run in {workdir} was started with: "
                "restore that text, or choose another folder"
            )


def warn_unranked(checkpoints: CheckpointManager, spec: str) -> None:
    """Warn about checkpoints without metrics, which a `spec` with "best" cannot rank."""
    unranked = checkpoints.unranked() if "best" in spec else []
    if unranked:
        steps = ", ".join(map(str, unranked))
        log(
            f"warning: {checkpoints.folder}: the metrics of step {steps} are missing or corrupt, "
            f"so {spec} is chosen without it"
        )


@dataclass(frozen=True)
class LoadedModel:
    """The model of a workdir, ready to decode."""

    experiment: Experiment
    vocabulary: Vocabulary
    model: Family
    params: dict
    mesh: Mesh
    steps: tuple[int, ...]  # of its checkpoint, or of the averaged ones

    @property
    def step(self) -> int | list[int]:
        """The step, or the list of averaged steps."""
        return self.steps[0] if len(self.steps) == 1 else list(self.steps)


def load(workdir: Path, checkpoint: str = "best", mesh: Mesh | None = None) -> LoadedModel:
    """Load the model of `checkpoint` (train/checkpoint_spec.py) on `mesh`, or on local devices.

    If the mesh spans processes, all of them load it together. LoRA adapters are merged into their
    base, before checkpoints are averaged. Raises ConfigError, DataError or CheckpointError for
    missing or corrupt files.
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
        family = trainable(experiment, model)
        base = read_base(workdir, family, mesh)
        check_base(workdir, experiment, meta)
        merge = make_merge_fn(family, mesh)
        params = checkpoints.restore_params(
            checkpoint, abstract_params(family, mesh), lambda trained: merge(trained, base)
        )
    return LoadedModel(experiment, vocabulary, model, params, mesh, steps)
