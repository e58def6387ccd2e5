"""Compiler-estimated cycles of a TPU program by component of the model.

The TPU compiler writes its estimate beside nearly every fusion, product and copy. The estimate
contains no waiting for collectives, and custom kernels have none.
"""

import re
from collections import Counter
from typing import NamedTuple

from aot.hlo import Instruction, Program
from aot.kernel_cycles import attention_cycles

# The first pattern that matches an operation's name decides. Names are those of Flax modules and
# methods, and of `jax.named_scope`, in the order of the call.
COMPONENTS = (
    ("dropout", r"Dropout_\d|/drop\b|\.drop\b"),
    ("logits and loss", r"\bloss\b|logits"),
    (
        "attention core",
        r"dot_product_attention|attention_core|splash|short_att|cudnn|/_decode/\w+$",
    ),
    ("projections", r"_project|project_out|\.qkv|\.kv\b|/ssru|projections/(?!.*norm)"),
    ("feed-forward", r"/feed_forward/|feed_forward$"),
    ("norms", r"norm\b"),
    ("embedding", r"_embed|embedding|positions"),
    ("optimizer", r"cond/branch_\d+_fun|^jit\(step\)/[\w\-]+$"),
    ("ranking of candidates", r"_search\).*/while/"),
)
TOP_K = "top-k (by arithmetic)"
OTHER = "other"  # also copies, which the compiler inserts without a name


class CustomKernel(NamedTuple):
    """A kernel without an estimate, such as a Pallas kernel, and how often it runs."""

    name: str
    component: str
    executions: int
    cycles: int | None  # of all executions by arithmetic (aot/kernel_cycles.py); None: unknown


class Cycles(NamedTuple):
    """Estimated cycles of one run of a program on one device."""

    components: dict[str, int]  # outside of loops of unknown length, the largest first
    per_pass: dict[str, dict[str, int]]  # of one pass of each loop of unknown length, by its name
    kernels: list[CustomKernel]  # not in the components

    @property
    def counted(self) -> int:
        """Cycles of kernels by arithmetic, not by the compiler."""
        return sum(kernel.cycles or 0 for kernel in self.kernels)

    @property
    def total(self) -> int:
        """Cycles without loops of unknown length: estimated ones, and counted ones of kernels."""
        return sum(self.components.values()) + self.counted


def estimated_cycles(
    program: Program, flops_per_cycle: float = 0.0, bytes_per_cycle: float = 0.0
) -> Cycles:
    """Sum the estimates of a TPU program by component, times the trip counts of loops.

    `flops_per_cycle` of the matrix units is needed to count the cycles of attention kernels, and
    `bytes_per_cycle` of the memory for those of top-k, which reads its operand once.
    """
    known: Counter = Counter()
    passes: dict[str, Counter] = {}
    kernels: Counter = Counter()
    counted: dict[tuple[str, str], int] = {}
    for execution in program.executions():
        instruction = execution.instruction
        if execution.fused:
            continue
        name = component(instruction.op_name)
        target = instruction.custom_call_target
        if target == "tpu_custom_call":
            kernel = instruction.name.rsplit(".", 1)[0]
            key = kernel, component(f"{instruction.op_name}/{kernel}")
            kernels[key] += execution.times
            if cycles := attention_cycles(instruction, flops_per_cycle):
                counted[key] = counted.get(key, 0) + cycles * execution.times
        cycles = instruction.estimated_cycles * execution.times
        if target == "TopK" and bytes_per_cycle:
            operand = program.by_name[execution.computation, instruction.operands[0]]
            name, cycles = TOP_K, round(operand.bytes / bytes_per_cycle) * execution.times
        if execution.counted:
            known[name] += cycles
        else:
            passes.setdefault(_loop_name(execution.loops[0]), Counter())[name] += cycles
    return Cycles(
        _largest_first(known),
        {loop: _largest_first(counter) for loop, counter in passes.items()},
        [
            CustomKernel(name, part, n, counted.get((name, part)))
            for (name, part), n in sorted(kernels.items())
        ],
    )


def _loop_name(loop: Instruction) -> str:
    """The scope of decode/loop.py that the loop is in, or its name in the program."""
    scope = re.search(r"(steps_to_\d+|last_\d+_sentences)", loop.op_name)
    return scope[1].replace("_", " ") if scope else loop.name


def component(op_name: str) -> str:
    """The component of the model that an operation belongs to, by its name."""
    for name, pattern in COMPONENTS:
        if re.search(pattern, op_name):
            return name
    return OTHER


def _largest_first(counter: Counter) -> dict[str, int]:
    return {name: cycles for name, cycles in counter.most_common() if cycles}
