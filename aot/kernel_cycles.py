"""Cycles of attention kernels, counted: the TPU compiler has no estimate for Pallas kernels.

A score s = q k takes products of K multiplications, of which a forward pass has 2, the backward
kernels of Splash 3 (dq) and 4 (dk and dv, with the scores again), and that for short rows 5. There
are elementwise operations as well: mask, exponential, sums. Matrix and vector units work side by
side, so the slower one counts. Loading and storing blocks overlaps with both and is not counted.
This is arithmetic, not a compiler's estimate.
"""

import re

from aot.hlo import Instruction

_LANES = 128  # width of the matrix unit: narrower heads take as long
_VECTOR_OPERATIONS = 2048.0  # per cycle: two units of 8 x 128 lanes, as in v5e
# Matrix products and elementwise operations per score, by a part of the kernel's name.
_COSTS = {
    "splash_mha_fwd": (2, 20),
    "splash_mha_dq": (3, 25),
    "splash_mha_dkv": (4, 25),
    "short_attention_fwd": (2, 20),
    "short_attention_bwd": (5, 35),
}


def attention_cycles(instruction: Instruction, flops_per_cycle: float) -> int | None:
    """Cycles of one run of an attention kernel on one device; None for another kernel.

    Blocks that Splash skips because of a causal mask are not subtracted.
    """
    kind = next((kind for kind in _COSTS if kind in instruction.name), None)
    scores = None if kind is None else _scores(instruction)
    if kind is None or scores is None or not flops_per_cycle:
        return None
    count, width = scores
    products, operations = _COSTS[kind]
    matrix = 2 * products * max(width, _LANES) / flops_per_cycle
    return round(count * max(matrix, operations / _VECTOR_OPERATIONS))


def _scores(instruction: Instruction) -> tuple[int, int] | None:
    """The number of scores, and the head width; None if the operands are others."""
    dims = [
        [int(n) for n in shape.split(",")]
        for shape in re.findall(r"\w+\[([\d,]+)\]", _operands(instruction))
    ]
    if short := re.search(r"short_attention_[a-z]+_(\d+)", instruction.name):
        # Ids of queries [B,T,1] and keys [B,1,S], then queries [B,T,H*K].
        heads = int(short[1])
        batch, queries, width = dims[2]
        return batch * heads * queries * dims[1][2], width // heads
    arrays = [shape for shape in dims if len(shape) == 4]
    if len(arrays) < 2:
        return None
    (batch, heads, queries, width), (_, _, keys, _) = arrays[:2]
    return batch * heads * queries * keys, width


def _operands(instruction: Instruction) -> str:
    match = re.search(r"operand_layout_constraints=\{(.*?)\}\},", instruction.attributes + ",")
    return match[1] if match else ""
