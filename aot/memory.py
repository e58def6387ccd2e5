"""Memory of a compiled program on one device, by component, beside the device's capacity."""

import re
from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from aot.targets import GIB


class Memory(NamedTuple):
    """Bytes on one device."""

    components: dict[str, int]  # their sum is `total`
    capacity: int  # 0: unknown

    @property
    def total(self) -> int:
        """Bytes that the program needs."""
        return sum(self.components.values())

    @property
    def headroom(self) -> int | None:
        """Bytes to spare, negative if the program does not fit; None if the capacity is unknown."""
        return self.capacity - self.total if self.capacity else None

    @property
    def fits(self) -> bool:
        """Whether the program fits, as far as is known."""
        return self.headroom is None or self.headroom >= 0


def device_bytes(tree) -> int:
    """Bytes on one device of a tree of abstract arrays with shardings."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def compiled_memory(compiled, parts: Mapping[str, int], rest: str, capacity: int) -> Memory:
    """The memory of a program whose arguments are `parts`; `rest` names its temporary memory.

    Outputs that reuse the memory of arguments are not counted twice. Parts that the compiler pads
    or adds, such as code, are "other".
    """
    stats = compiled.memory_analysis()
    outputs = stats.output_size_in_bytes - stats.alias_size_in_bytes
    other = stats.argument_size_in_bytes - sum(parts.values()) + outputs
    other += stats.generated_code_size_in_bytes
    components = {**parts, rest: stats.temp_size_in_bytes, "other": max(other, 0)}
    return Memory({name: size for name, size in components.items() if size}, capacity)


def memory_of_failure(message: str, parts: Mapping[str, int], rest: str) -> Memory | None:
    """The memory of a program that the TPU compiler rejected for lack of memory, by its message.

    None if the message is about something else.
    """
    size = r"([\d.]+)([KMGT]?)"
    if used := re.search(rf"Used {size} of {size} hbm", message):
        temporary = _size(used[1], used[2]) - sum(parts.values())
    elif used := re.search(
        rf"HLO temporaries \({size}\) exceeds available HBM \({size}\)", message
    ):
        temporary = _size(used[1], used[2])
    else:
        return None
    return Memory({**parts, rest: max(temporary, 0)}, _size(used[3], used[4]))


def _size(number: str, unit: str) -> int:
    return int(float(number) * GIB * 1024.0 ** (" KMGT".index(unit or " ") - 3))
