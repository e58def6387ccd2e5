"""The text of a compiled program (HLO): its instructions, loops and trip counts."""

import re
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

_HEADER = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_ASSIGNMENT = re.compile(r"\s*(ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"\b([a-z]+\d*[a-z0-9]*)\[([\d,]*)\]")
_CALLED = re.compile(r"\b(calls|to_apply|body|condition|branch_computations)=(\{[^}]*\}|%[\w.\-]+)")
_HOST_OPCODES = ("infeed", "outfeed", "send", "recv")
_BITS = {"pred": 8, "s4": 4, "u4": 4, "token": 0, "opaque": 0, "tuple": 0}


class Instruction(NamedTuple):
    """One instruction of a computation."""

    name: str
    shape: str  # text such as "f32[8,128]{1,0}" or "(f32[8], s32[])"
    opcode: str
    operands: tuple[str, ...]
    attributes: str  # all text after the operands
    root: bool

    @property
    def bytes(self) -> int:
        """Bytes of the result; padding to tiles is not counted."""
        return shape_bytes(self.shape)

    @property
    def op_name(self) -> str:
        """The JAX operation that it comes from, such as "jit(step)/encoder_0/norm/mul"; or ""."""
        return self._attribute(r'op_name="([^"]*)"')

    @property
    def estimated_cycles(self) -> int:
        """The TPU compiler's estimate for one execution; 0 where it has none."""
        return int(self._attribute(r'"estimated_cycles":"(\d+)"') or 0)

    @property
    def custom_call_target(self) -> str:
        """The name of the called kernel; "" if this is not a custom call."""
        return self._attribute(r'custom_call_target="([^"]*)"')

    def called(self) -> dict[str, list[str]]:
        """The computations that it runs, by role: calls, to_apply, body, condition, branches."""
        return {
            role: re.findall(r"%([\w.\-]+)", names)
            for role, names in _CALLED.findall(self.attributes)
        }

    def _attribute(self, pattern: str) -> str:
        match = re.search(pattern, self.attributes)
        return match[1] if match else ""


class Execution(NamedTuple):
    """An instruction and how often one run of the program executes it."""

    instruction: Instruction
    computation: str
    times: int
    loops: tuple[Instruction, ...]  # the while loops around it, from the outside
    counted: bool  # False: within a loop whose trip count is unknown, of which this is one pass
    fused: bool  # within a fusion, whose cost is that of the fusion instruction


class Program:
    """A compiled program, parsed from `jax.stages.Compiled.as_text()`."""

    def __init__(self, text: str):
        self.text = text
        self.computations: dict[str, list[Instruction]] = {}
        self.entry = ""
        current: list[Instruction] = []
        for line in text.splitlines():
            if line.endswith("{") and (header := _HEADER.match(line)):
                current = self.computations.setdefault(header[2], [])
                self.entry = header[2] if header[1] else self.entry
            elif match := _ASSIGNMENT.match(line):
                current.append(_parse(match, line))

    def executions(self) -> Iterator[Execution]:
        """All instructions that a run executes, with those of called computations.

        Of a `lax.cond`, the branch for True is taken: it is the usual one in Heed's programs.
        """
        yield from self._run(self.entry, 1, (), True, False)

    def _run(self, name, times, loops, counted, fused) -> Iterator[Execution]:
        for instruction in self.computations.get(name, ()):
            yield Execution(instruction, name, times, loops, counted, fused)
            called = instruction.called()
            if instruction.opcode == "while":
                trips = self.trip_count(instruction)
                inner = times * (1 if trips is None else trips)
                inside = (*loops, instruction), counted and trips is not None, fused
                yield from self._run(called["body"][0], inner, *inside)
            elif branches := called.get("branch_computations"):
                yield from self._run(branches[-1], times, loops, counted, fused)
            elif instruction.opcode in ("fusion", "call", "async-start"):
                inside_fusion = fused or instruction.opcode == "fusion"
                for callee in called.get("calls", []) + called.get("to_apply", []):
                    yield from self._run(callee, times, loops, counted, inside_fusion)

    def trip_count(self, loop: Instruction) -> int | None:
        """How often a while loop runs; None if that depends on data.

        Taken from the compiler if it states it, otherwise from a condition `counter < constant` of
        a counter that starts at 0, as a `lax.scan` has.
        """
        if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes):
            return int(known[1])
        condition = {i.name: i for i in self.computations[loop.called()["condition"][0]]}
        root = next(i for i in condition.values() if i.root)
        if root.opcode != "compare" or "direction=LT" not in root.attributes:
            return None
        counter, limit = (condition.get(name) for name in root.operands)
        if counter is None or limit is None or counter.opcode != "get-tuple-element":
            return None
        return _constant_value(limit)

    def host_transfers(self) -> list[str]:
        """Names of instructions that wait for the host: callbacks, infeed, outfeed."""
        return [
            i.name
            for body in self.computations.values()
            for i in body
            if i.opcode in _HOST_OPCODES or "callback" in i.custom_call_target
        ]

    @cached_property
    def by_name(self) -> dict[tuple[str, str], Instruction]:
        """Instructions by the names of their computation and their own."""
        return {(c, i.name): i for c, body in self.computations.items() for i in body}


def shape_bytes(shape: str) -> int:
    """Bytes of the arrays in a shape's text."""
    total = 0
    for dtype, dims in _ARRAY.findall(shape):
        size = 1
        for dim in dims.split(","):
            size *= int(dim) if dim else 1
        total += size * _bits(dtype)
    return total // 8


def _bits(dtype: str) -> int:
    if dtype in _BITS:
        return _BITS[dtype]
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 0


def _parse(match: re.Match, line: str) -> Instruction:
    start = match.end()
    end = _closing(line, start) + 1 if line[start] == "(" else line.index(" ", start)
    shape, rest = line[start:end], end + 1
    opening = line.index("(", rest)
    closing = _closing(line, opening)
    operands = tuple(re.findall(r"%([\w.\-]+)", line[opening:closing]))
    opcode = line[rest:opening]
    # A constant has its value where others have operands.
    attributes = line[opening:] if opcode == "constant" else line[closing + 1 :]
    return Instruction(match[2], shape, opcode, operands, attributes, bool(match[1]))


def _closing(line: str, opening: int) -> int:
    """Index of the parenthesis that closes the one at `opening`."""
    depth = 0
    for match in re.compile(r"[()]").finditer(line, opening):
        depth += 1 if match[0] == "(" else -1
        if not depth:
            return match.start()
    raise ValueError(f"unbalanced parentheses in the program text: {line[:200]}")


def _constant_value(instruction: Instruction) -> int | None:
    match = re.match(r"\((-?\d+)\)", instruction.attributes)
    return int(match[1]) if instruction.opcode == "constant" and match else None
