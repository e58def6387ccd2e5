"""Find a mesh with the most headroom, and the largest batch that fits on it.

Each trial is a compilation, so there are few: common meshes, then, if none fits, recomputation and
gradient accumulation, then the batch size by secant steps, since memory is nearly linear in it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jax.sharding import Mesh

from aot.report import Report
from aot.targets import GIB, Target
from model.config import ConfigError
from model.sharding import make_mesh

_ROUNDS = 4  # compilations to find the batch size
_STEP = 1.02  # larger batches by less than this factor are not looked for
# In the order of what they cost: recomputation repeats parts of the forward pass.
_REMEDIES: tuple[dict[str, Any], ...] = (
    {"remat": "dots"},
    {"remat": "full"},
    {"grad_accum_steps": 2},
    {"grad_accum_steps": 4},
    {"remat": "full", "grad_accum_steps": 4},
    {"remat": "full", "grad_accum_steps": 16},
)
Compile = Callable[[dict[str, Any], Mesh], Report]


def fit(
    compile_variant: Compile,
    target: Target,
    tokens_per_batch: int,
    meshes: Sequence[Mesh],
    log: Callable[[str], None],
) -> Iterator[Report]:
    """Yield the reports of all trials; the last one is the largest batch on the best mesh.

    `compile_variant` compiles with changed settings on a mesh. Without `meshes`, common ones are
    tried. Raises ConfigError if the target's memory is unknown, or if nothing fits.
    """
    if not target.hardware.memory:
        raise ConfigError(f"--fit needs the memory of a device, which is unknown for {target.text}")
    reports: list[tuple[Report, Mesh, dict[str, Any]]] = []
    for mesh in meshes or common_meshes(target):
        try:
            report = compile_variant({}, mesh)
        except ConfigError as error:
            log(f"skipped {describe(mesh.shape)}: {error}")
            continue
        yield report
        reports.append((report, mesh, {}))
    if not reports:
        raise ConfigError(f"--fit: no mesh of {target.text} divides the model")
    best = max(reports, key=_headroom)
    for changes in () if best[0].memory.fits else _REMEDIES:
        report = compile_variant(changes, best[1])
        yield report
        if report.memory.fits:
            best = report, best[1], changes
            break
    report, mesh, changes = best
    if not report.memory.fits:
        raise ConfigError(
            f"nothing fits on {target.text} with data.tokens_per_batch={tokens_per_batch}: "
            "use more devices, fewer tokens or a smaller model"
        )
    for larger in _grow(compile_variant, report, mesh, changes, tokens_per_batch):
        yield larger
        if larger.memory.fits:
            report = larger
    log(f"{best_line(report)}")
    yield report


def common_meshes(target: Target) -> list[Mesh]:
    """Meshes worth a compilation: data parallel, fsdp, and both with tensor parallelism."""
    count = target.count
    sizes = [{"data": count}]
    sizes += [{"fsdp": n} for n in (4, 16, count) if 1 < n <= count and count % n == 0]
    sizes += [{"tensor": n} for n in (2, 8) if n <= count and count % n == 0]
    sizes += [{"fsdp": count // 8, "tensor": 8}] if count % 8 == 0 and count > 8 else []
    unique = [s for i, s in enumerate(sizes) if s not in sizes[:i]]
    return [make_mesh(**{"data": -1, **size}, devices=target.devices) for size in unique]


def describe(mesh) -> str:
    """A mesh's axes with more than one device: "data=4, fsdp=4"."""
    return ", ".join(f"{axis}={n}" for axis, n in mesh.items() if n > 1) or "one device"


def best_line(report: Report) -> str:
    """The result of a search for what fits, in one line."""
    changes = ", ".join(f"{name}={report.settings[name]}" for name in ("remat", "grad_accum_steps"))
    return (
        f"best: mesh {describe(report.mesh)}, {changes}, "
        f"data.tokens_per_batch={report.settings['tokens_per_batch']}, "
        f"{(report.memory.headroom or 0) / GIB:.2f} GiB to spare"
    )


def _headroom(trial) -> float:
    return trial[0].memory.headroom or 0


def _grow(compile_variant, fitting: Report, mesh, changes, tokens: int) -> Iterator[Report]:
    """Compile for larger batches, by secant steps toward the capacity."""
    capacity = fitting.memory.capacity
    low, low_bytes = tokens, fitting.memory.total
    high = 0  # the smallest that does not fit
    # The first guess: all but arguments grows with the batch.
    temporary = max(fitting.memory.components.get("activations and gradients", 1), 1)
    guess = int(low * (1 + (capacity - low_bytes) / temporary))
    for _ in range(_ROUNDS):
        guess = int(min(guess, high / _STEP if high else guess) * 0.99)
        if guess <= low * _STEP:
            return
        report = compile_variant({**changes, "tokens_per_batch": guess}, mesh)
        yield report
        total = report.memory.total
        if report.memory.fits:
            slope = (total - low_bytes) / (guess - low)
            low, low_bytes = guess, total
        else:
            slope = (total - low_bytes) / (guess - low)
            high = guess
        guess = int(low + (capacity - low_bytes) / slope) if slope > 0 else int(low * 1.5)
