"""TrainState: parameters, optimizer state and rng, created sharded.

Parameters are made inside one jit whose output shardings come from the parameters' logical axis
names, and everything shaped like them (Adam's moments, the moving average) follows: no host and no
single device ever holds what it should not. Of an adapted model (model/lora.py) the parameters are
the adapters, and the model that these adapt is the state's `base`, which no update changes.
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

from model.family import Family
from model.lora import LoRAModel
from model.sharding import param_shardings, use_mesh
from train.loss_scale import LossScale, init_loss_scale


class TrainState(NamedTuple):
    """All that an update changes."""

    step: Array  # int32 scalar: updates done
    params: Any
    opt_state: Any  # as the optimizer made it
    rng: Array  # a typed key, never changed: update k draws from fold_in(rng, k)
    ema: Any = None  # the parameters' exponential moving average, or None: not kept
    loss_scale: LossScale | None = None  # of training in float16
    base: Any = None  # the parameters that adapters are trained for; stored once, not with these

    @property
    def weights(self):
        """The parameters to evaluate with, of what is trained: the average where one is kept."""
        return self.params if self.ema is None else self.ema


def create_state(
    model: Family,
    tx: optax.GradientTransformation,
    rng: Array,
    mesh: Mesh,
    *,
    ema: bool = False,
    base: Any = None,
) -> TrainState:
    """A fresh state at step 0 from a typed key, each leaf laid out on the mesh.

    `base` are the parameters that an adapted model adapts, laid out as `abstract_params` says.
    """
    init = _initializer(model, tx, ema)
    shardings = state_shardings(model, tx, mesh, ema=ema)._replace(base=None)
    with use_mesh(mesh):
        state = jax.jit(lambda key: nn.unbox(init(key)), out_shardings=shardings)(rng)
    return state._replace(base=base)


def state_shardings(
    model: Family, tx: optax.GradientTransformation, mesh: Mesh, *, ema: bool = False
) -> TrainState:
    """The tree of NamedShardings that `create_state` lays a state out by."""
    return param_shardings(_shapes(model, tx, ema), mesh)


def abstract_state(
    model: Family, tx: optax.GradientTransformation, mesh: Mesh, *, ema: bool = False
) -> TrainState:
    """The state as ShapeDtypeStructs with shardings: what to restore a checkpoint into."""
    shapes = nn.unbox(_shapes(model, tx, ema))
    return jax.tree.map(_place, shapes, state_shardings(model, tx, mesh, ema=ema))


def abstract_params(model: Family, mesh: Mesh) -> Any:
    """The parameters alone, as ShapeDtypeStructs with shardings: all that decoding needs."""
    boxes = param_shapes(model)
    return jax.tree.map(_place, nn.unbox(boxes), param_shardings(boxes, mesh))


# Tracing a deep model's init takes a second, and a start asks for its shapes many times.
@lru_cache(maxsize=4)
def param_shapes(model: Family) -> Any:
    """The parameters as ShapeDtypeStructs, in boxes of their logical names."""
    return jax.eval_shape(model.init_params, jax.random.key(0))


def _initializer(model, tx, ema: bool) -> Callable[[Array], TrainState]:
    """Key -> a state whose parameter-like leaves still carry their boxes of logical names."""

    def init(rng: Array) -> TrainState:
        params_key, rng = jax.random.split(rng)
        return _beginning(model, tx, ema, model.init_params(params_key), rng)

    return init


def _beginning(model, tx, ema: bool, params, rng: Array) -> TrainState:
    # Optimizers map over boxes as over any tree, so their state comes out boxed as well.
    opt_state = tx.init(params)
    scale = init_loss_scale() if model.config.dtype == "float16" else None
    return TrainState(jnp.int32(0), params, opt_state, rng, params if ema else None, scale)


@lru_cache(maxsize=4)
def _shapes(model, tx, ema: bool) -> TrainState:
    begin = partial(_beginning, model, tx, ema)
    state = jax.eval_shape(begin, param_shapes(model), jax.random.key(0))
    base = param_shapes(model.model) if isinstance(model, LoRAModel) else None
    return state._replace(base=base)


def _place(leaf, sharding):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
