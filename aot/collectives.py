"""Collectives of a compiled program: kind, mesh axes, bytes, and whether they are in a loop."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import NamedTuple

import numpy as np

from aot.hlo import Execution, Program

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute",
         "collective-broadcast", "ragged-all-to-all")  # fmt: skip
_OPCODE = re.compile(f"({'|'.join(KINDS)})(-start)?$")
Groups = frozenset[frozenset[int]]


class Collective(NamedTuple):
    """Collectives of one kind over the same mesh axes."""

    kind: str
    axes: str  # "data", or "data+fsdp"; "other" if no axes of the mesh match
    in_loop: bool
    counted: bool  # False: `executions` and `bytes` are of one pass of a loop of unknown length
    executions: int  # executions in a run of the program
    bytes: int  # of one device in all executions: the larger of operands and result


def collectives(program: Program, axes: Mapping[str, int]) -> list[Collective]:
    """All collectives of a program for a mesh with these `axes` and sizes, the largest first."""
    counts: Counter = Counter()
    sizes: Counter = Counter()
    seen = set()
    for execution in program.executions():
        if kind := collective_kind(execution.instruction.opcode):
            attributes = execution.instruction.attributes
            if execution.fused:  # TPUs split one into fusions: its start, work meanwhile, its end
                channel = re.search(r"channel_id=(\d+)", attributes)
                part = channel and channel[1], execution.loops
                if part in seen:
                    continue
                seen.add(part)
            key = kind, _axes(attributes, axes), bool(execution.loops), execution.counted
            counts[key] += execution.times
            sizes[key] += execution.times * _bytes(program, execution)
    found = [
        Collective(*key, executions=counts[key], bytes=sizes[key])  # type: ignore[misc]
        for key in counts
    ]
    return sorted(found, key=lambda c: (-c.bytes, c[:3]))


def collective_kind(opcode: str) -> str:
    """The kind of a collective by its opcode; "" for others, and for the end of an async one."""
    match = _OPCODE.match(opcode)
    return match[1] if match else ""


def _bytes(program: Program, execution: Execution) -> int:
    instruction = execution.instruction
    operands = sum(
        operand.bytes
        for name in instruction.operands
        if (operand := program.by_name.get((execution.computation, name)))
    )
    result = instruction.bytes
    if instruction.opcode.endswith("-start") and not instruction.opcode.startswith("all-reduce"):
        result -= operands  # the result of a start holds the operands too
    return max(operands, result)


def _axes(attributes: str, axes: Mapping[str, int]) -> str:
    """The names of the mesh axes along which the devices of a group differ."""
    wide = [name for name, size in axes.items() if size > 1]
    candidates = [names for n in range(1, len(wide) + 1) for names in combinations(wide, n)]
    ids = np.arange(math.prod(axes.values())).reshape(*axes.values())
    if pairs := re.search(r"source_target_pairs=\{(.*?)\}\}", attributes):
        edges = [tuple(map(int, p.split(","))) for p in re.findall(r"(\d+,\d+)", pairs[1])]
        for names in candidates:
            group_of = {device: group for group in _groups(ids, axes, names) for device in group}
            if all(group_of[a] == group_of[b] for a, b in edges):
                return "+".join(names)
        return "other"
    groups = frozenset(replica_groups(attributes, ids.size))
    for names in candidates:
        if groups == _groups(ids, axes, names):
            return "+".join(names)
    return "other"


def _groups(ids: np.ndarray, axes: Mapping[str, int], names: tuple[str, ...]) -> Groups:
    """The groups of devices that differ only along `names`."""
    along = [i for i, axis in enumerate(axes) if axis in names]
    size = math.prod(ids.shape[i] for i in along)
    rows = np.moveaxis(ids, along, range(-len(along), 0)).reshape(-1, size)
    return frozenset(frozenset(row.tolist()) for row in rows)


def replica_groups(attributes: str, num_devices: int) -> Iterator[frozenset[int]]:
    """The groups of devices of an instruction, in any of the notations of HLO."""
    if match := re.search(r"replica_groups=mesh\[([^\]]*)\] *\{([^}]*)\}", attributes):
        yield from _mesh_groups(match[1], match[2])
    elif match := re.search(
        r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes
    ):
        shape, dims, order = ([int(n) for n in g.split(",")] if g else None for g in match.groups())
        assert shape is not None and dims is not None
        ids = np.arange(math.prod(dims)).reshape(dims)
        rows = (ids if order is None else ids.transpose(order)).reshape(shape)
        yield from (frozenset(row.tolist()) for row in rows)
    elif match := re.search(r"replica_groups=\{(\{[\d,{}]*\})\}", attributes):
        for group in re.findall(r"\{([\d,]+)\}", match[1]):
            yield frozenset(map(int, group.split(",")))
    else:  # no groups: all devices
        yield frozenset(range(num_devices))


def _mesh_groups(mesh: str, used: str) -> Iterator[frozenset[int]]:
    """Groups of `mesh['a'=2,'b'=4] {'b'}`; `'b':(2)2` is a part of b: after 2, of size 2."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", mesh)}
    parts = {
        name: (int(before or 1), int(size or sizes[name]))
        for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", used)
    }
    dims: list[int] = []
    along = []
    for name, size in sizes.items():
        before, part = parts.get(name, (1, 1))
        along += [len(dims) + 1]
        dims += [before, part, size // before // part]
    ids = np.arange(math.prod(dims)).reshape(dims)
    rows = np.moveaxis(ids, along, range(-len(along), 0)).reshape(
        -1, math.prod(dims[i] for i in along)
    )
    yield from (frozenset(row.tolist()) for row in rows)
