"""A run's folder for a model that was not trained here."""

from dataclasses import asdict
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

from decode import shortlist
from decode.options import SearchOptions
from experiments import workdir as folders
from experiments.importing.parts import Imported
from model import ConfigError
from train.checkpoint import Checkpoints
from train.state import TrainState


def check_free(workdir: Path) -> None:
    """Raises ConfigError where a folder holds a run already, or can hold none."""
    folders.check_folder(workdir)
    if (workdir / "config.json").exists() or any((workdir / "checkpoints").glob("[0-9]*")):
        raise ConfigError(f"--workdir={workdir} holds a run already: choose another folder")


def write_run(workdir: Path, imported: Imported) -> dict:
    """Writes the run, its config.json last, and returns what the command says of it.

    Its one checkpoint is of step 0. Raises ConfigError, InputError, CheckpointError.
    """
    experiment, vocabulary, params, words = imported
    options = SearchOptions(**asdict(experiment.search))  # raises for what no search has
    options.check_vocabulary(experiment.model.target_vocab)
    workdir.mkdir(parents=True, exist_ok=True)
    with folders.lock(workdir):
        vocabulary.save(workdir)
        (workdir / shortlist.NAME).unlink(missing_ok=True)  # of an import that was not finished
        if words is not None:
            words.save(workdir)
        state = TrainState(
            jnp.int32(0),
            jax.tree.map(jnp.asarray, params),
            optax.identity().init(params),
            jax.random.key(0),
        )
        with Checkpoints(workdir / "checkpoints") as checkpoints:
            checkpoints.save(0, state, {"vocabulary": vocabulary.digest(), "text": ""})
        folders.write_config(workdir, experiment)
    model = experiment.model
    return {
        "workdir": str(workdir),
        "params": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "source_vocabulary": model.vocab_size,
        "target_vocabulary": model.target_vocab,
        "shortlist": words is not None,
        "search": asdict(experiment.search),
    }
