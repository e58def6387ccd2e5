"""Compile a program and report what it contains and needs."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from aot.collectives import collectives
from aot.cycles import Cycles, estimated_cycles
from aot.hlo import Program
from aot.memory import compiled_memory, memory_of_failure
from aot.report import Report
from aot.targets import Hardware, Target


def report_program(
    compile_program: Callable[[], jax.stages.Compiled],
    target: Target,
    mesh: Mesh,
    parts: Mapping[str, int],
    rest: str,
    **fields: Any,
) -> Report:
    """Compile and report; a program that needs too much memory is reported as such.

    `parts` are the bytes of the program's arguments on a device, `rest` names its temporary memory,
    and `fields` are the other fields of the report.
    """
    fields |= dict(target=target, mesh=dict(mesh.shape))
    start = time.perf_counter()
    try:
        compiled = compile_program()
    except jax.errors.JaxRuntimeError as error:
        memory = memory_of_failure(str(error), parts, rest)
        if memory is None:
            raise
        return Report(memory=memory, compile_seconds=time.perf_counter() - start, **fields)
    seconds = time.perf_counter() - start
    text = compiled.as_text() or ""
    program = Program(text)
    return Report(
        memory=compiled_memory(compiled, parts, rest, target.hardware.memory),
        compile_seconds=seconds,
        collectives=collectives(program, mesh.shape),
        cycles=_cycles(program, target.hardware),
        text=text,
        **fields,
    )


def _cycles(program: Program, hardware: Hardware) -> Cycles | None:
    if hardware.kind != "tpu":
        return None
    bytes_per_cycle = hardware.bandwidth / hardware.clock if hardware.clock else 0.0
    return estimated_cycles(program, hardware.flops_per_cycle, bytes_per_cycle)
