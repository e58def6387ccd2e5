"""Training without a model: updates that only count steps."""

import io
import itertools

import jax.numpy as jnp
import numpy as np
import optax

from train.loop import fit
from train.loss import Metrics
from train.progress import Progress
from train.state import TrainState


def initial_state(step=0):
    """A train state with only a step."""
    return TrainState(jnp.int32(step), {}, optax.identity().init({}), None)


def make_metrics(loss=2.0, tokens=10.0):
    sums = dict(loss_sum=loss * tokens, nll_sum=tokens, correct=5.0, tokens=tokens)
    counts = dict(
        source_tokens=15.0, num_positions=50.0, updates=1.0, grad_norm_sum=0.5, skipped=0.0
    )
    return Metrics(**{name: np.float32(value) for name, value in (sums | counts).items()})


def count_update(state, _batch):
    """An update that only counts steps; the loss is the step."""
    state = state._replace(step=state.step + 1)
    return state, make_metrics(loss=float(state.step))


def quiet_progress():
    return Progress(io.StringIO())


def fit_counting(num_steps, update=count_update, start_step=0, **options):
    """Runs `fit` with `count_update`, without progress output by default."""
    options = {"progress": quiet_progress()} | options
    return fit(
        initial_state(start_step), update, itertools.repeat(()), num_steps=num_steps, **options
    )
