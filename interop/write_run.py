"""Write the workdir of an imported model."""

import shutil
from dataclasses import asdict
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from data.vocabulary import VOCABULARY_FILES
from decode import shortlist
from experiments import workdir as folders
from experiments.temporary_folders import removed_unless_done
from experiments.workdir_lock import reserve_workdir
from interop.imported_model import ImportedModel
from model import ConfigError
from train.checkpoint import CheckpointManager
from train.state import TrainState

_PART = ".importing"  # a run's files until all of them are written


def check_free(workdir: Path) -> None:
    """Raise ConfigError if a folder already holds a run, or cannot hold one."""
    folders.check_folder(workdir)
    if (workdir / "config.json").exists() or any((workdir / "checkpoints").glob("[0-9]*")):
        raise ConfigError(f"--workdir={workdir} holds a run already: choose another folder")


def write_run(workdir: Path, imported: ImportedModel) -> dict:
    """Write the run, config.json last, and return a summary for the command to print.

    Its only checkpoint is of step 0. On failure, the folder is restored. Raises ConfigError,
    InputError, CheckpointError.
    """
    experiment, vocabulary, params, words = imported
    experiment.search.options().check_vocabulary(experiment.model.target_vocab)
    part = workdir / _PART
    with reserve_workdir(workdir), removed_unless_done(workdir):
        shutil.rmtree(part, ignore_errors=True)  # of an import that was killed
        part.mkdir()
        vocabulary.save(part)
        if words is not None:
            words.save(part)
        state = TrainState(
            jnp.int32(0),
            jax.tree.map(jnp.asarray, params),
            optax.identity().init(params),
            jax.random.key(0),
        )
        with CheckpointManager(part / "checkpoints") as checkpoints:
            checkpoints.save(0, state, {"vocabulary": vocabulary.digest(), "text": ""})
        _move(part, workdir)
        part.rmdir()
        folders.write_config(workdir, experiment)
    model = experiment.model
    return {
        "workdir": str(workdir),
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "source_vocabulary": model.vocab_size,
        "target_vocabulary": model.target_vocab,
        "shortlist": words is not None,
        "search": asdict(experiment.search),
    }


def _move(part: Path, workdir: Path) -> None:
    """Move everything in `part` to the folder, replacing files of an unfinished run."""
    for name in ("checkpoints", shortlist.NAME, *VOCABULARY_FILES):
        old = workdir / name
        if old.is_dir():
            shutil.rmtree(old)
        else:
            old.unlink(missing_ok=True)
    for new in sorted(part.iterdir()):
        new.rename(workdir / new.name)
