"""A run's folder: its configuration, its vocabulary, its checkpoints, found again by others.

config.json        the experiment, resolved, with the commit of the code
tokenizer.model    or tokenizer.source.model and tokenizer.target.model
shortlist.npz      words that outputs may have, of a run imported with such a list
checkpoints/       Orbax
base/              what adapters were trained for, of a run that trains some, as one checkpoint
metrics.jsonl      one event a line
tensorboard/       the same for TensorBoard
environment.jsonl  one line a start: machine, versions, commit
translations.jsonl what the test translated, one sentence a line
report.html        all of it for people
lock               held by the run that trains here, which lock.owner names
hosts/             a sign of life of each process, of a run of several
"""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import jax
from filelock import FileLock, Timeout
from jax.sharding import Mesh

from data.files import replace_file
from data.tokenizer import Vocabulary
from experiments.adapting import check_base, learner, read_base
from experiments.config import Experiment, SearchConfig, flat, to_experiment
from experiments.sizes import check_stored_sizes
from model import ConfigError, Transformer
from model.sharding import make_mesh
from train.checkpoint import Checkpoints
from train.state import abstract_params
from train.whole import compile_whole

# What may change when a run goes on; everything else makes it another run.
_FREE = {
    "train": {"num_steps", "max_minutes", "log_every", "eval_every", "checkpoint_every", "keep"}
    | {"keep_best", "bleu_sentences", "max_skipped", "rewinds", "spike", "grace_seconds"}
    | {"lost_seconds", "stalled_seconds", "chunked_loss"},
    "data": {"path", "cache"},  # the same text may have moved; its digest is compared
    "search": {field.name for field in fields(SearchConfig)},
    "mesh": {"data", "fsdp", "tensor"},
}
# What makes a batch: it may change too, where that is asked for (experiments/course.py says how).
_BATCH = {"data": {"tokens_per_batch", "packing", "num_buckets"}, "optimizer": {"accumulate"}}


def saved(workdir: Path) -> bool:
    """Whether a run saved a checkpoint there: until then its settings may change."""
    return any((workdir / "checkpoints").glob("[0-9]*"))


def read_config(workdir: Path, flag: str = "workdir") -> Experiment:
    """The experiment of a run's folder, which the flag names. Raises ConfigError if it has none."""
    file = workdir / "config.json"
    try:
        tree = json.loads(file.read_text())["experiment"]
        tree["data"].setdefault("packing", False)  # runs from before there was any
        return to_experiment(tree)
    except FileNotFoundError:
        raise ConfigError(f"--{flag}={workdir} holds no run: {file} is missing") from None
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{file} is not the configuration of a run") from None


def write_config(workdir: Path, experiment: Experiment) -> None:
    """Write config.json, whole or not at all; `commit` stays the one that the run began with."""
    try:
        commit = json.loads((workdir / "config.json").read_text())["commit"]
    except (OSError, ValueError, KeyError):
        commit = commit_of_the_code()
    text = json.dumps({"experiment": asdict(experiment), "commit": commit}, indent=2)
    replace_file(workdir / "config.json", f"{text}\n".encode())


@contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Within it `workdir` is there and locked; where it ends as no run's, it is as it was before.

    Raises ConfigError where it cannot be written to, or is in use.
    """
    check_folder(workdir)
    made = [path for path in (workdir, *workdir.absolute().parents) if not path.exists()]
    hosts, gone = workdir / "hosts", workdir / ".hosts.gone"
    others = hosts.exists()
    workdir.mkdir(parents=True, exist_ok=True)
    with lock(workdir):
        try:
            yield
        finally:
            if not (workdir / "config.json").exists():
                for file in (workdir / "lock", workdir / "lock.owner"):
                    file.unlink(missing_ok=True)
                if hosts.exists() and not others:
                    hosts.rename(gone)  # first, since other processes may still write there
                    shutil.rmtree(gone, ignore_errors=True)
                for folder in made:
                    with suppress(OSError):  # where there is something of others in it
                        folder.rmdir()


@contextmanager
def lock(workdir: Path) -> Iterator[None]:
    """Within it no other run trains in `workdir`; raises ConfigError if one does already.

    The lock is the operating system's, on the file `lock`, and ends with the process.
    """
    mine = FileLock(workdir / "lock", timeout=0)
    who = workdir / "lock.owner"
    try:
        mine.acquire()
    except Timeout:
        owner = who.read_text().strip() if who.exists() else "another process"
        raise ConfigError(
            f"--workdir={workdir} is in use: {owner} trains there; wait, or choose another folder"
        ) from None
    with mine:
        replace_file(who, f"process {os.getpid()} of {socket.gethostname()}\n".encode())
        yield


def check_folder(workdir: Path, flag: str = "workdir") -> None:
    """Raise ConfigError if `workdir`, which the flag names, cannot be a folder to write to."""
    there = next(path for path in (workdir, *workdir.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise ConfigError(f"--{flag}={workdir}: {there} is not a folder that can be written to")


def check_same_run(workdir: Path, experiment: Experiment, allow_batch_change: bool = False) -> None:
    """Raise ConfigError, naming the first difference, if the workdir is another experiment's.

    A run that never saved a checkpoint has nothing to lose: its settings may change. The size of
    batches may with `allow_batch_change`.
    """
    if not saved(workdir) or not (workdir / "config.json").exists():
        if saved(workdir):
            raise ConfigError(
                f"--workdir={workdir} has checkpoints, but config.json is missing: of which run "
                "they are cannot be told; choose another folder"
            )
        return
    old, new = flat(read_config(workdir)), flat(experiment)
    for key, value in new.items():
        was, (group, _, name) = old[key], key.rpartition(".")
        batch = name in _BATCH.get(group, ())
        free = name in _FREE.get(group, ()) or (batch and allow_batch_change)
        if not free and was != value:
            change = ", or go on with other batches by --allow_batch_change" * batch
            raise ConfigError(
                f"--workdir={workdir} holds another run: its {key} is {was!r}, not "
                f"{value!r}; choose another folder{change}"
            )


def check_vocabulary(workdir: Path, vocabulary: Vocabulary, meta: dict) -> None:
    """Raise ConfigError if a checkpoint with this `meta` was trained with another vocabulary."""
    if meta.get("vocabulary") != vocabulary.digest():
        raise ConfigError(
            f"the vocabulary in {workdir} is not the one its checkpoints were trained with: "
            "put the run's own tokenizer.model back"
        )


def check_text(workdir: Path, digest: str, meta: dict) -> None:
    """Raise ConfigError if a checkpoint with this `meta` was trained on other tokenised text."""
    if meta.get("text") != digest:
        raise ConfigError(
            f"the training text is not the one that the run in {workdir} began with: "
            "give it that text again, or choose another folder"
        )


def commit_of_the_code() -> str | None:
    """The commit that is checked out, "-dirty" where files differ from it; None without git."""
    describe = "describe --always --exclude=* --abbrev=40 --dirty".split()
    command = ["git", "-C", str(Path(__file__).parent), *describe]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or no checkout
        return None
    return found.stdout.strip()


@dataclass(frozen=True)
class Trained:
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


def load(workdir: Path, checkpoint: str = "best", mesh: Mesh | None = None) -> Trained:
    """The model of `checkpoint` (train/choice.py), on `mesh`, or whole on this process's devices.

    Where the mesh spans processes, all of them load it together. Adapters are merged into the
    model that they are of, and so are they before there is a mean of several.
    Raises ConfigError, DataError or CheckpointError for a part that is missing or broken.
    """
    experiment = read_config(workdir)
    vocabulary = Vocabulary.load(workdir)
    mesh = mesh or make_mesh(devices=jax.local_devices())
    model = Transformer(experiment.model)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        steps = checkpoints.choice(checkpoint).steps
        meta = checkpoints.meta(steps[-1])
        check_vocabulary(workdir, vocabulary, meta)
        check_stored_sizes(workdir, experiment, steps[-1])
        learns = learner(experiment, model)
        base = read_base(workdir, learns, mesh)
        check_base(workdir, experiment, meta)
        whole = partial(compile_whole(learns, mesh), base=base)
        params = checkpoints.restore_params(checkpoint, abstract_params(learns, mesh), whole)
    return Trained(experiment, vocabulary, model, params, mesh, steps)
