"""What a run saved, as arrays to compare."""

import jax
import numpy as np

from experiments import workdir
from experiments.run import schedule_and_optimizer
from model import Transformer
from model.sharding import make_mesh
from train.checkpoint import Checkpoints
from train.state import abstract_state


def saved(folder):
    """Every array of the last checkpoint."""
    c = workdir.read_config(folder)
    _, tx = schedule_and_optimizer(c)
    abstract = abstract_state(Transformer(c.model), tx, make_mesh())
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = checkpoints.restore("last", abstract)
    return [np.asarray(x) for x in jax.tree.leaves(state._replace(rng=()))]
