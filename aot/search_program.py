"""Compile a search for a target and report on it."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from aot.compiled import report_program
from aot.memory import device_bytes
from aot.report import Report
from aot.targets import Target
from decode.families import make_generator
from decode.options import SearchOptions
from decode.search_batch import SearchBatch
from decode.sharded_search import ROWS, compile_search
from decode.sharded_weights import abstract_weights
from model.sharding import use_mesh
from train.state import abstract_params

CACHE = "search cache and activations"


class SearchProgram(NamedTuple):
    """A search to compile: sentences over all devices, and their number of tokens with EOS."""

    model: Any  # a Family with a TransformerConfig
    options: SearchOptions
    precision: str
    sentences: int
    source_length: int


def report_search(program: SearchProgram, target: Target, mesh: Mesh, **fields) -> Report:
    """Compile the search; a program that needs too much memory is reported as such.

    `fields` are further ones of the report.
    """
    p = program
    family = make_generator(p.model.config)
    params = abstract_params(p.model, mesh)
    weights = abstract_weights(family, params, mesh, p.precision)
    rows = -(-p.sentences // mesh.size) * mesh.size
    request = _abstract_request(rows, p.source_length, mesh)
    max_length = p.options.limit(p.source_length, p.model.config.max_positions)
    parts = {"weights": device_bytes(weights), "batch": device_bytes(request)}
    search = compile_search((family,), mesh, p.options, p.precision)

    def compile_program() -> jax.stages.Compiled:
        with use_mesh(mesh):
            return search.lower((weights,), request, max_length=max_length).compile()

    return report_program(
        compile_program,
        target,
        mesh,
        parts,
        CACHE,
        what="search",
        shape={"sentences": rows, "source": p.source_length, "max_output": max_length},
        num_params=sum(x.size for x in jax.tree.leaves(params)),
        **fields,
    )


def _abstract_request(rows: int, length: int, mesh: Mesh) -> SearchBatch:
    sharding = NamedSharding(mesh, ROWS)

    def array(*shape: int, dtype=np.int32):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    return SearchBatch(
        src=array(rows, length),
        limits=array(rows),
        prefix=array(rows, 0),
        phrases=array(rows, 0, 0),
        seeds=array(rows, dtype=np.uint32),
        sentence_ids=array(rows, 2),
    )
