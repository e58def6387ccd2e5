"""Cycles of Splash attention, counted: the TPU compiler has no estimate for Pallas kernels.

A score s = q k takes products of K multiplications, of which a forward pass has 2, the backward
kernels 3 (dq) and 4 (dk and dv, with the scores again), and elementwise operations: mask,
exponential, sums. Matrix and vector units work side by side, so the slower one counts. Loading and
storing blocks overlaps with both and is not counted. This is arithmetic, not a compiler's estimate.
"""

import re

from aot.hlo import Instruction

_LANES = 128  # width of the matrix unit: narrower heads take as long
_VECTOR_OPERATIONS = 2048.0  # per cycle: two units of 8 x 128 lanes, as in v5e
# Matrix products and elementwise operations per score, by a part of the kernel's name.
_COSTS = {"fwd": (2, 20), "dq": (3, 25), "dkv": (4, 25)}


def splash_cycles(instruction: Instruction, flops_per_cycle: float) -> int | None:
    """Cycles of one run of a Splash kernel on one device; None for another kernel.

    Blocks that a causal mask skips are not subtracted.
    """
    kind = next((kind for kind in _COSTS if f"splash_mha_{kind}" in instruction.name), None)
    shapes = re.findall(r"\w+\[(\d+),(\d+),(\d+),(\d+)\]", _operands(instruction))
    if kind is None or len(shapes) < 2 or not flops_per_cycle:
        return None
    (batch, heads, queries, width), (_, _, keys, _) = (map(int, shape) for shape in shapes[:2])
    scores = batch * heads * queries * keys
    products, operations = _COSTS[kind]
    matrix = 2 * products * max(width, _LANES) / flops_per_cycle
    return round(scores * max(matrix, operations / _VECTOR_OPERATIONS))


def _operands(instruction: Instruction) -> str:
    match = re.search(r"operand_layout_constraints=\{(.*?)\}\},", instruction.attributes + ",")
    return match[1] if match else ""
