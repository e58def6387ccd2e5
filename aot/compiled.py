"""Compile a program and report what it contains and needs."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from aot.collectives import collectives
from aot.cycles import estimated_cycles
from aot.hlo import Program
from aot.memory import compiled_memory, memory_of_failure
from aot.report import Report
from aot.targets import Target


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
        cycles=estimated_cycles(program, target.hardware.flops_per_cycle)
        if target.hardware.kind == "tpu"
        else None,
        text=text,
        **fields,
    )
