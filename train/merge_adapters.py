"""Merge trained LoRA adapters into the base parameters."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
from jax.sharding import Mesh

from model.family import Trainable
from model.lora import LoRAModel, merge_adapted, replace_subtree, select_adapted
from model.sharding import param_shardings
from train.state import param_shapes


@lru_cache(maxsize=4)  # validation and test of a run share one, compiled once
def make_merge_fn(model: Trainable, mesh: Mesh) -> Callable[[Any, Any], Any]:
    """Make a function (trained parameters, base) -> parameters of the plain model, on the mesh.

    Without adapters it returns the trained parameters. Otherwise adapted matrices are new arrays,
    and all others are the arrays of the base, whose memory a train step may reuse.
    """
    if not isinstance(model, LoRAModel):
        return lambda params, base: params
    shardings = param_shardings(param_shapes(model.model), mesh)
    adapted_shardings = select_adapted(shardings, param_shapes(model))
    add = jax.jit(partial(merge_adapted, scale=model.scale), out_shardings=adapted_shardings)
    return lambda params, base: replace_subtree(base, add(select_adapted(base, params), params))
