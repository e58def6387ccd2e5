"""Multi-process helpers: the primary process, broadcast, allgather.

All processes call each function at the same point of the program. With one process the functions
have no cost and no effect.
"""

import json
from collections import deque
from collections.abc import Callable, Collection, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec


class RemoteProcessError(RuntimeError):
    """An error in another process, in one line that names the process."""


class PreemptedError(Exception):
    """The process must stop now for a reason that is not an error, such as SIGTERM."""


def is_primary() -> bool:
    """Whether this is the primary process, which writes all output and files."""
    # Must not initialize JAX's devices: some callers run before that is allowed.
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def allgather(value: Any) -> list:
    """Gather the values of all processes, in the order of their indices; values must be JSON."""
    if jax.process_count() == 1:
        return [value]
    content = json.dumps(value).encode()
    sizes = multihost_utils.process_allgather(np.int32(len(content))).ravel()
    rows = multihost_utils.process_allgather(_padded(content, max(sizes)))
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def broadcast_from_primary(value: Any) -> Any:
    """Broadcast the primary process's value, since hosts may see a shared folder differently."""
    return allgather(value)[0]


def run_on_primary_and_broadcast(action: Callable[[], bytes]) -> bytes:
    """Run `action` on the primary process only, and broadcast its result.

    If it raises, all processes raise; the others raise RemoteProcessError.
    """
    content = run_on_all(action if is_primary() else bytes)
    if jax.process_count() == 1:
        return content
    size = broadcast_from_primary(len(content))
    broadcast = multihost_utils.broadcast_one_to_all
    return broadcast(_padded(content if is_primary() else b"", size))[:size].tobytes()


def run_on_all(action: Callable[[], Any]) -> Any:
    """Run `action` on all processes; return this process's result once all are done.

    If one process raises, all raise: that process its own error, the others RemoteProcessError, or
    PreemptedError if that was the error. The action must not communicate with other processes.
    """
    if jax.process_count() == 1:
        return action()
    result, error = None, None
    try:
        result = action()
    except Exception as exception:
        error = exception
    line = None if error is None else " ".join(str(error).split())
    reports = allgather((line, isinstance(error, PreemptedError)))
    if error is not None:
        raise error
    for index, (line, interrupted) in enumerate(reports):
        if line is not None:
            raise (
                PreemptedError(line)
                if interrupted
                else RemoteProcessError(f"process {index}: {line}")
            )
    return result


def run_on_primary(action: Callable[[], Any]) -> None:
    """Run `action` on the primary process; the others wait, and raise if it raises."""
    run_on_all(action if is_primary() else lambda: None)


class AnyReduce:
    """Union of sets over processes, from a fixed list of names; the result is the same in all.

    A call with this process's names returns the names of all processes `lag` calls ago, so it does
    not wait for the devices to finish their queued work; the first call waits.
    """

    def __init__(self, names: Sequence[str], lag: int = 0):
        self._names, self._lag = tuple(names), lag
        self._in_flight: deque[jax.Array] = deque()
        self._first_call = True
        self._mesh = Mesh(np.array(jax.devices()), ("all",), axis_types=(AxisType.Auto,))

    def __call__(self, names: Collection[str]) -> set[str]:
        if jax.process_count() == 1:
            return set(names)
        self._in_flight.append(_any(self._mesh)(self._flags(names)))
        if len(self._in_flight) <= self._lag and not self._first_call:
            return set()
        self._first_call = False
        flags = jax.device_get(self._in_flight.popleft())
        return {name for name, flag in zip(self._names, flags, strict=True) if flag}

    def _flags(self, names: Collection[str]) -> jax.Array:
        """Flags [devices, names] int32: 1 for a name of this process, on its devices."""
        local = np.array([[name in names for name in self._names]], np.int32)
        shape = (self._mesh.size, len(self._names))
        rows = NamedSharding(self._mesh, PartitionSpec("all"))
        return jax.make_array_from_callback(shape, rows, lambda _: local)


@cache  # an AnyReduce is created for every evaluation: compile it once
def _any(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(partial(jnp.max, axis=0), out_shardings=NamedSharding(mesh, PartitionSpec()))


def _padded(content: bytes, size: int) -> np.ndarray:
    """The bytes [n] uint8, zero-padded to a power of two, to limit the number of compilations."""
    out = np.zeros(max(256, 1 << int(size - 1).bit_length()) if size else 256, np.uint8)
    out[: len(content)] = np.frombuffer(content, np.uint8)
    return out
