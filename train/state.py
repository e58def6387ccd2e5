"""TrainState: parameters, optimizer state and rng, created sharded.

Parameters are created inside one jit whose output shardings follow from their logical axis names;
Adam's moments and the moving average are sharded like them. So hosts and devices never hold more
than their shards. For an adapted model (model/lora.py) the parameters are the adapters, and the
parameters of the base model are the state's `base`, which no update changes.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.sharding import Mesh

from model.family import Trainable
from model.lora import LoRAModel
from model.sharding import param_shardings, use_mesh
from train.loss_scale import LossScale, init_loss_scale


class TrainState(NamedTuple):
    """The training state: everything that an update changes."""

    step: Array  # int32 scalar: updates done
    params: Any
    opt_state: Any  # the optimizer's state
    rng: Array  # a typed key, constant: update k draws from fold_in(rng, k)
    ema: Any = None  # exponential moving average of the parameters, or None
    loss_scale: LossScale | None = None  # for training in float16
    base: Any = None  # base parameters of adapters; stored once, not in each checkpoint

    @property
    def eval_params(self):
        """The trained parameters to evaluate with: the moving average if there is one."""
        return self.params if self.ema is None else self.ema


def create_state(
    model: Trainable,
    tx: optax.GradientTransformation,
    rng: Array,
    mesh: Mesh,
    *,
    ema: bool = False,
    base: Any = None,
) -> TrainState:
    """Create the initial state from a typed key, with each leaf sharded on the mesh.

    `base` are the base parameters of an adapted model, with the shardings of `abstract_params`.
    """
    init = _initializer(model, tx, ema)
    shardings = state_shardings(model, tx, mesh, ema=ema)._replace(base=None)
    with use_mesh(mesh):
        state = jax.jit(lambda key: nn.unbox(init(key)), out_shardings=shardings)(rng)
    return state._replace(base=base)


def state_shardings(
    model: Trainable, tx: optax.GradientTransformation, mesh: Mesh, *, ema: bool = False
) -> TrainState:
    """The tree of NamedShardings of a state from `create_state`."""
    return param_shardings(_shapes(model, tx, ema), mesh)


def abstract_state(
    model: Trainable, tx: optax.GradientTransformation, mesh: Mesh, *, ema: bool = False
) -> TrainState:
    """The state as ShapeDtypeStructs with shardings: the target of restoring a checkpoint."""
    shapes = nn.unbox(_shapes(model, tx, ema))
    return jax.tree.map(_with_sharding, shapes, state_shardings(model, tx, mesh, ema=ema))


def abstract_params(model: Trainable, mesh: Mesh) -> Any:
    """The parameters as ShapeDtypeStructs with shardings, for decoding."""
    boxes = param_shapes(model)
    return jax.tree.map(_with_sharding, nn.unbox(boxes), param_shardings(boxes, mesh))


# Tracing a deep model's init takes a second, and startup needs the shapes many times.
@lru_cache(maxsize=4)
def param_shapes(model: Trainable) -> Any:
    """The parameters as ShapeDtypeStructs, boxed with their logical axis names."""
    return jax.eval_shape(model.init_params, jax.random.key(0))


def _initializer(model, tx, ema: bool) -> Callable[[Array], TrainState]:
    """Make a function key -> state with parameter-like leaves boxed with logical axis names."""

    def init(rng: Array) -> TrainState:
        params_key, rng = jax.random.split(rng)
        return _initial_state(model, tx, ema, model.init_params(params_key), rng)

    return init


def _initial_state(model, tx, ema: bool, params, rng: Array) -> TrainState:
    # Optimizers map over boxes like over any tree, so their state is boxed as well.
    opt_state = tx.init(params)
    scale = init_loss_scale() if model.config.dtype == "float16" else None
    return TrainState(jnp.int32(0), params, opt_state, rng, params if ema else None, scale)


@lru_cache(maxsize=4)
def _shapes(model, tx, ema: bool) -> TrainState:
    init = partial(_initial_state, model, tx, ema)
    state = jax.eval_shape(init, param_shapes(model), jax.random.key(0))
    base = param_shapes(model.model) if isinstance(model, LoRAModel) else None
    return state._replace(base=base)


def _with_sharding(leaf, sharding):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
