"""A search on a mesh, compiled: each device searches its own rows."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
from jax.sharding import Mesh, PartitionSpec

from decode import sharded_weights, xla_options
from decode.family import Generates
from decode.loop import identity
from decode.options import SearchOptions
from decode.search import search
from decode.search_batch import SearchBatch
from model.sharding import AXES, replicated

ROWS = PartitionSpec(AXES)  # each row is searched on one device


def _sharded_search(
    families, weights, request: SearchBatch, *, mesh, options, on_token, max_length
):
    shard = partial(
        search,
        families,
        options=options,
        max_length=max_length,
        on_token=on_token and partial(jax.debug.callback, on_token),
        sync=sharded_weights.max_over_shards if sharded_weights.num_shards(mesh) > 1 else identity,
    )
    return jax.shard_map(
        shard,
        mesh=mesh,
        in_specs=(sharded_weights.specs(weights), ROWS),
        out_specs=ROWS,
        check_vma=False,  # each device's loop ends when its own rows are done
    )(weights, request)


def compile_search(
    families: Sequence[Generates],
    mesh: Mesh,
    options: SearchOptions,
    precision: str,
    on_token: Callable | None = None,
) -> jax.stages.Wrapped:
    """(weights, request, max_length) -> `Hypotheses`, as one jit for all shapes.

    `on_token(sentence_ids, tokens, length, active)` is called on the host after every token.
    """
    return xla_options.jit(
        partial(_sharded_search, families, mesh=mesh, options=options, on_token=on_token),
        precision,
        mesh.devices.flat[0].platform,
        sharded=sharded_weights.num_shards(mesh) > 1,
        static_argnames="max_length",
        # Replicated, so that each process can read the outputs of all devices.
        out_shardings=replicated(mesh) if jax.process_count() > 1 else None,
    )
