"""Export of the whole search to StableHLO, which needs only JAX to run.

    program = jax.export.deserialize(Path("beam.stablehlo").read_bytes())
    arrays = numpy.load("weights.npz")
    weights = [arrays[str(i)] for i in range(len(arrays))]
    tokens, scores, lengths = program.call(weights, src, limits)

src [B,S] int32 are a source's ids, its end and zeros after it; limits [B] int32 are the most tokens
of each output, its end included, at most `max_length`. Any B and S will do. Outputs are best first:
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
from decode.inputs import SearchBatch
from decode.loop import Hypotheses
from decode.options import METHOD_OPTIONS, SearchOptions
from decode.search import search
from decode.weights import pack
from experiments.workdir import LoadedModel
from model import TransformerConfig

_PLATFORMS = ("cpu", "cuda", "tpu")
_LONGEST = 256  # tokens of an output, where the run sets no limit that its source does not


def write_programs(trained: LoadedModel, folder: Path) -> None:
    """Writes greedy.stablehlo, beam.stablehlo, weights.npz, their facts and the vocabulary."""
    config, settings = trained.model.config, trained.experiment.search
    weights = jax.jit(partial(pack, config))(jax.device_get(trained.params))
    leaves, structure = jax.tree.flatten(weights)
    longest = min(filter(None, (settings.max_length or _LONGEST, config.max_positions)))
    beam = SearchOptions(**vars(settings))
    others = {name: getattr(SearchOptions, name) for name in METHOD_OPTIONS["beam"]}
    content = {}
    for name, options in ("beam", beam), ("greedy", replace(beam, method="greedy", **others)):
        program = partial(_search, config, structure, options, longest)
        content[f"{name}.stablehlo"] = bytes(_exported(program, leaves, config).serialize())
    arrays = io.BytesIO()
    numbered = {str(i): np.asarray(leaf) for i, leaf in enumerate(leaves)}
    np.savez(arrays, **numbered)  # type: ignore[arg-type]  # are arrays
    content["weights.npz"] = arrays.getvalue()
    facts = {"max_length": longest, "pad": PAD, "bos": BOS, "eos": EOS, "unk": UNK}
    content["program.json"] = json.dumps(facts | {"search": vars(settings)}, indent=2).encode()
    folder.mkdir(parents=True, exist_ok=True)
    trained.vocabulary.save(folder)
    for name, each in content.items():
        write_atomic(folder / name, each)


def _exported(program, leaves: list[Array], config: TransformerConfig) -> export.Exported:
    """The program for any number of rows, and any source length that there are positions for."""
    most = [f"s <= {config.max_positions}"] if config.max_positions else []
    rows, length = export.symbolic_shape("b, s", constraints=["b >= 1", "s >= 1", *most])
    shape = partial(jax.ShapeDtypeStruct, dtype=jnp.int32)
    weights = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    compiled = export.export(jax.jit(program), platforms=_PLATFORMS)
    return compiled(weights, shape((rows, length)), shape((rows,)))


def _search(
    config: TransformerConfig,
    structure,
    options: SearchOptions,
    longest: int,
    leaves: list[Array],
    src: Array,
    limits: Array,
) -> tuple[Array, Array, Array]:
    nothing = partial(jnp.zeros, dtype=jnp.int32)
    rows = src.shape[0]
    asked = SearchBatch(
        src,
        jnp.clip(limits, 1, longest),
        prefix=nothing((rows, 0)),
        phrases=nothing((rows, 0, 0)),
        seeds=jnp.zeros(rows, jnp.uint32),
        sentence_ids=nothing((rows, 2)),
    )
    weights = jax.tree.unflatten(structure, leaves)
    found: Hypotheses = search(
        [make_generator(config)],
        [weights],
        asked,
        options=options,
        max_length=longest,
        tail=False,
    )
    return found.tokens, found.scores, found.lengths
