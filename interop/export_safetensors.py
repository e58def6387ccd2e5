"""Export to safetensors, with a table of parameter names and axes."""

import json
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save

from data.atomic_write import write_atomic
from experiments.workdir import LoadedModel
from train.state import param_shapes


def write_tensors(trained: LoadedModel, folder: Path) -> None:
    """Write model.safetensors, names.json, config.json and the vocabulary to a folder.

    names.json has the shape and axis names of every tensor (model/sharding.py).
    """
    boxes = param_shapes(trained.model)
    tensors, table = {}, {}
    for path, leaf in jax.tree.leaves_with_path(jax.device_get(trained.params)):
        name, box = ".".join(key.key for key in path), boxes
        for key in path:
            box = box[key.key]
        tensors[name] = np.ascontiguousarray(leaf)
        table[name] = {"shape": list(leaf.shape), "axes": list(box.names)}
    settings = {"model": asdict(trained.model.config), "search": asdict(trained.experiment.search)}
    folder.mkdir(parents=True, exist_ok=True)
    trained.vocabulary.save(folder)
    write_atomic(folder / "names.json", json.dumps(table, indent=1).encode())
    write_atomic(folder / "config.json", json.dumps(settings, indent=2).encode())
    write_atomic(folder / "model.safetensors", save(tensors, {"step": str(trained.step)}))
