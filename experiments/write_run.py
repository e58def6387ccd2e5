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
from experiments.temporary_folders import remove_on_error
from experiments.workdir_lock import reserve_workdir
from interop.imported_model import ImportedModel
from model import ConfigError
from train.checkpoint import CheckpointManager
from train.state import TrainState

_STAGING = ".importing"  # holds the run's files until all are written


def check_free(workdir: Path) -> None:
    """Raise ConfigError if a folder already has a run or is not writable."""
    folders.check_run_folder(workdir)
    if (workdir / "config.json").exists() or any((workdir / "checkpoints").glob("[0-9]*")):
        raise ConfigError(f"--workdir={workdir} already has a run: choose another folder")


def write_run(workdir: Path, imported: ImportedModel) -> dict:
    """Write the run, config.json last, and return a summary for the command to print.

    Its only checkpoint is of step 0. On failure, the folder is restored. Raises ConfigError,
    InputError, CheckpointError.
    """
    experiment, vocabulary, params, lexical_shortlist = imported
    experiment.search.options().check_vocabulary(experiment.model.target_vocab)
    staging = workdir / _STAGING
    with reserve_workdir(workdir), remove_on_error(workdir):
        shutil.rmtree(staging, ignore_errors=True)  # of an import that was killed
        staging.mkdir()
        vocabulary.save(staging)
        if lexical_shortlist is not None:
            lexical_shortlist.save(staging)
        state = TrainState(
            jnp.int32(0),
            jax.tree.map(jnp.asarray, params),
            optax.identity().init(params),
            jax.random.key(0),
        )
        with CheckpointManager(staging / "checkpoints") as checkpoints:
            checkpoints.save(0, state, {"vocabulary": vocabulary.digest(), "text": ""})
        _move(staging, workdir)
        staging.rmdir()
        folders.write_config(workdir, experiment)
    model = experiment.model
    return {
        "workdir": str(workdir),
        "num_params": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "source_vocabulary": model.vocab_size,
        "target_vocabulary": model.target_vocab,
        "shortlist": lexical_shortlist is not None,
        "search": asdict(experiment.search),
    }


def _move(staging: Path, workdir: Path) -> None:
    """Move all files in `staging` to the folder, replacing files of an unfinished run."""
    for name in ("checkpoints", shortlist.NAME, *VOCABULARY_FILES):
        path = workdir / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in sorted(staging.iterdir()):
        path.rename(workdir / path.name)
