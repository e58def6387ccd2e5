"""Training without a model: updates that only count."""

import io
import itertools

import jax.numpy as jnp
import numpy as np
import optax

from train.loop import fit
from train.loss import Metrics
from train.progress import Progress
from train.state import TrainState


def start(step=0):
    """A state of nothing but a step."""
    return TrainState(jnp.int32(step), {}, optax.identity().init({}), None)


def told(loss=2.0, tokens=10.0):
    sums = dict(loss_sum=loss * tokens, nll_sum=tokens, correct=5.0, tokens=tokens)
    rest = dict(source_tokens=15.0, num_positions=50.0, updates=1.0, grad_norm_sum=0.5, skipped=0.0)
    return Metrics(**{name: np.float32(value) for name, value in (sums | rest).items()})


def count(state, _batch):
    """An update that only counts; the loss is the step."""
    state = state._replace(step=state.step + 1)
    return state, told(loss=float(state.step))


def quiet():
    return Progress(io.StringIO())


def counted(num_steps, update=count, first=0, **options):
    """`fit` over such updates, quietly unless told otherwise."""
    options = {"progress": quiet()} | options
    return fit(start(first), update, itertools.repeat(()), num_steps=num_steps, **options)
