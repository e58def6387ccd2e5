"""Multi-process helpers: the primary process, broadcast, allgather.

Each function is called by all processes, at the same place of the program; in a run of one process
it costs nothing and changes nothing.
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
    """What went wrong in another process, in one line that names it."""


class PreemptedError(Exception):
    """What a process does must end now, for this reason, which is no error: SIGTERM, say."""


def is_primary() -> bool:
    """Whether this process speaks for all: to people, to programs, to the disk."""
    # Asked without starting JAX's devices: some ask before they may be started.
    return not jax.distributed.is_initialized() or jax.process_index() == 0


def allgather(value: Any) -> list:
    """Every process's value, by their numbers; values are what JSON can hold."""
    if jax.process_count() == 1:
        return [value]
    content = json.dumps(value).encode()
    sizes = multihost_utils.process_allgather(np.int32(len(content))).ravel()
    rows = multihost_utils.process_allgather(_padded(content, max(sizes)))
    return [json.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def broadcast_from_primary(value: Any) -> Any:
    """The first process's value: of a shared folder each may see something else for a while."""
    return allgather(value)[0]


def run_on_primary_and_broadcast(action: Callable[[], bytes]) -> bytes:
    """What the first process's `action` returns, which only that one does.

    Where it raises, all raise: ElsewhereError in the others.
    """
    content = run_on_all(action if is_primary() else bytes)
    if jax.process_count() == 1:
        return content
    size = broadcast_from_primary(len(content))
    tell = multihost_utils.broadcast_one_to_all
    return tell(_padded(content if is_primary() else b"", size))[:size].tobytes()


def run_on_all(action: Callable[[], Any]) -> Any:
    """What this process's `action` returns, once all have done theirs.

    Where one raises, all raise: it its own error, the others ElsewhereError, or Interrupted where
    that is what it raised. The action speaks to no other process.
    """
    if jax.process_count() == 1:
        return action()
    result, error = None, None
    try:
        result = action()
    except Exception as raised:
        error = raised
    line = None if error is None else " ".join(str(error).split())
    told = allgather((line, isinstance(error, PreemptedError)))
    if error is not None:
        raise error
    for number, (line, interrupted) in enumerate(told):
        if line is not None:
            raise (
                PreemptedError(line)
                if interrupted
                else RemoteProcessError(f"process {number}: {line}")
            )
    return result


def run_on_primary(action: Callable[[], Any]) -> None:
    """Has the first process do something; the others wait, and raise where it raises."""
    run_on_all(action if is_primary() else lambda: None)


class AnyReduce:
    """Which of a few words anyone says, known to all at the same call.

    `agree(mine)` returns the words that any process gave at the call `lag` calls ago, so that it
    need not wait for the devices to finish all that they were given; the first call waits.
    """

    def __init__(self, words: Sequence[str], lag: int = 0):
        self._words, self._lag = tuple(words), lag
        self._under_way: deque[jax.Array] = deque()
        self._first = True
        self._mesh = Mesh(np.array(jax.devices()), ("all",), axis_types=(AxisType.Auto,))

    def __call__(self, mine: Collection[str]) -> set[str]:
        if jax.process_count() == 1:
            return set(mine)
        self._under_way.append(_any(self._mesh)(self._said(mine)))
        if len(self._under_way) <= self._lag and not self._first:
            return set()
        self._first = False
        said = jax.device_get(self._under_way.popleft())
        return {word for word, any_said in zip(self._words, said, strict=True) if any_said}

    def _said(self, mine: Collection[str]) -> jax.Array:
        """[devices, words] int32: 1 for a word of this process, on its devices."""
        own = np.array([[word in mine for word in self._words]], np.int32)
        shape = (self._mesh.size, len(self._words))
        rows = NamedSharding(self._mesh, PartitionSpec("all"))
        return jax.make_array_from_callback(shape, rows, lambda _: own)


@cache  # an agreement is made for every look, and would compile it anew
def _any(mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(partial(jnp.max, axis=0), out_shardings=NamedSharding(mesh, PartitionSpec()))


def _padded(content: bytes, size: int) -> np.ndarray:
    """The bytes [n] uint8, with zeros up to a power of two, so that few programs are compiled."""
    out = np.zeros(max(256, 1 << int(size - 1).bit_length()) if size else 256, np.uint8)
    out[: len(content)] = np.frombuffer(content, np.uint8)
    return out
