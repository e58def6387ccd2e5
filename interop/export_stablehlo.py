"""Export of greedy and beam search to StableHLO, which needs only JAX to run.

    program = jax.export.deserialize(Path("beam.stablehlo").read_bytes())
    arrays = numpy.load("weights.npz")
    weights = [arrays[str(i)] for i in range(len(arrays))]
    tokens, scores, lengths = program.call(weights, src, limits)

src [B,S] int32 are a source's ids with EOS, padded with zeros; limits [B] int32 are the maximum
lengths of outputs with EOS, at most `max_length`. B and S are arbitrary. Outputs are best first:
tokens [B,W,L], scores [B,W], lengths [B,W].
"""

import io
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export

from data.atomic_write import write_atomic
from data.batch import BOS, EOS, PAD, UNK
from decode.families import make_generator
from decode.loop import Hypotheses
from decode.options import METHOD_OPTIONS, SearchOptions
from decode.search import search
from decode.search_batch import SearchBatch
from decode.weights import pack
from experiments.workdir import LoadedModel
from model import TransformerConfig

_PLATFORMS = ("cpu", "cuda", "tpu")
_MAX_LENGTH = 256  # output tokens, if the run sets no limit


def write_programs(trained: LoadedModel, folder: Path) -> None:
    """Write greedy.stablehlo, beam.stablehlo, weights.npz, program.json and the vocabulary."""
    config, settings = trained.model.config, trained.experiment.search
    weights = jax.jit(partial(pack, config))(jax.device_get(trained.params))
    leaves, structure = jax.tree.flatten(weights)
    max_length = min(filter(None, (settings.max_length or _MAX_LENGTH, config.max_positions)))
    beam = SearchOptions(**vars(settings))
    defaults = {name: getattr(SearchOptions, name) for name in METHOD_OPTIONS["beam"]}
    content = {}
    for name, options in ("beam", beam), ("greedy", replace(beam, method="greedy", **defaults)):
        program = partial(_search, config, structure, options, max_length)
        content[f"{name}.stablehlo"] = bytes(_exported(program, leaves, config).serialize())
    arrays = io.BytesIO()
    numbered = {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)}
    np.savez(arrays, **numbered)  # type: ignore[arg-type]  # arrays
    content["weights.npz"] = arrays.getvalue()
    program_json = {"max_length": max_length, "pad": PAD, "bos": BOS, "eos": EOS, "unk": UNK}
    content["program.json"] = json.dumps(
        program_json | {"search": vars(settings)}, indent=2
    ).encode()
    folder.mkdir(parents=True, exist_ok=True)
    trained.vocabulary.save(folder)
    for name, data in content.items():
        write_atomic(folder / name, data)


def _exported(program, leaves: list[Array], config: TransformerConfig) -> export.Exported:
    """Export the program for any number of rows, and any source length within the positions."""
    bounds = [f"s <= {config.max_positions}"] if config.max_positions else []
    rows, length = export.symbolic_shape("b, s", constraints=["b >= 1", "s >= 1", *bounds])
    shape = partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    weights = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    compiled = export.export(jax.jit(program), platforms=_PLATFORMS)
    return compiled(weights, shape((rows, length)), shape((rows,)))


def _search(
    config: TransformerConfig,
    structure,
    options: SearchOptions,
    max_length: int,
    leaves: list[Array],
    src: Array,
    limits: Array,
) -> tuple[Array, Array, Array]:
    empty = partial(jnp.zeros, dtype=jnp.int32)
    rows = src.shape[0]
    request = SearchBatch(
        src,
        jnp.clip(limits, 1, max_length),
        prefix=empty((rows, 0)),
        phrases=empty((rows, 0, 0)),
        seeds=jnp.zeros(rows, jnp.uint32),
        sentence_ids=empty((rows, 2)),
    )
    weights = jax.tree.unflatten(structure, leaves)
    hypotheses: Hypotheses = search(
        [make_generator(config)],
        [weights],
        request,
        options=options,
        max_length=max_length,
        tail=False,
    )
    return hypotheses.tokens, hypotheses.scores, hypotheses.lengths
