"""Merge trained LoRA adapters into the base parameters."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
from jax.sharding import Mesh

from model.family import Family
from model.lora import LoRAModel, merged, replace_subtree, select_adapted
from model.sharding import param_shardings
from train.state import param_shapes


@lru_cache(maxsize=4)  # a run looks and tests by one, which is compiled once
def make_merge_fn(model: Family, mesh: Mesh) -> Callable[[Any, Any], Any]:
    """(parameters as trained, base) -> those that the plain model takes, laid out on the mesh.

    Where there are no adapters they are the same. Else those that have one are new, and all others
    are the base's own arrays, whose memory a train step takes.
    """
    if not isinstance(model, LoRAModel):
        return lambda params, base: params
    shardings = param_shardings(param_shapes(model.model), mesh)
    places = select_adapted(shardings, param_shapes(model))
    add = jax.jit(partial(merged, scale=model.scale), out_shardings=places)
    return lambda params, base: replace_subtree(base, add(select_adapted(base, params), params))
