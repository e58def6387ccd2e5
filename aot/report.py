"""What a compiled program needs: memory, collectives, cycles, useful FLOPs, as one value."""

from dataclasses import asdict, dataclass, field
from typing import Any

from aot.collectives import Collective
from aot.cycles import Cycles
from aot.memory import Memory
from aot.targets import Target

ESTIMATE = "compiler estimate"


@dataclass(frozen=True)
class Report:
    """The report of one program; memory, FLOPs, cycles and collectives are of one device."""

    what: str  # train or search
    target: Target
    mesh: dict[str, int]
    shape: dict[str, int]  # of the batch, over all devices
    settings: dict[str, Any]
    num_params: int
    memory: Memory
    compile_seconds: float
    collectives: list[Collective] = field(default_factory=list)
    cycles: Cycles | None = None  # TPUs only
    useful_flops: float = 0.0
    tokens: int = 0  # of both sides, over all devices, that one run of the program processes
    shape_source: str = "config"  # or "text"
    text: str = ""  # of the program; "" if it does not fit

    @property
    def seconds(self) -> float | None:
        """Seconds of one run by estimated cycles; None without an estimate."""
        clock = self.target.hardware.clock
        return self.cycles.total / clock if self.cycles and self.cycles.total and clock else None

    @property
    def tokens_per_second(self) -> float | None:
        """Tokens of both sides per second on all devices, by estimated cycles."""
        return self.tokens / self.seconds if self.seconds and self.tokens else None

    @property
    def utilisation(self) -> float | None:
        """Useful FLOPs as a fraction of the peak rate, by estimated cycles."""
        if not self.seconds or not self.useful_flops:
            return None
        return self.useful_flops / (self.seconds * self.target.hardware.flops)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON; estimates have `compiler_estimate` in their key."""
        return {
            "what": self.what,
            "target": self.target.text,
            "devices": self.target.count,
            "mesh": self.mesh,
            "batch": self.shape,
            "batch_from": self.shape_source,
            **self.settings,
            "num_params": self.num_params,
            "fits": self.memory.fits,
            "bytes_per_device": self.memory.components | {"total": self.memory.total},
            "capacity_per_device": self.memory.capacity or None,
            "headroom_per_device": self.memory.headroom,
            "bytes_in_total": self.memory.total * self.target.count,
            "collectives": [c._asdict() for c in self.collectives],
            "useful_flops_per_device": self.useful_flops or None,
            "tokens": self.tokens or None,
            "compiler_estimate": self._estimate(),
            "compile_seconds": round(self.compile_seconds, 1),
        }

    def _estimate(self) -> dict[str, Any] | None:
        if self.cycles is None:
            return None
        clock = self.target.hardware.clock
        loops = [
            {"loop": name, "cycles_per_pass": sum(c.values()), "components": c}
            | ({"seconds_per_pass": sum(c.values()) / clock} if clock else {})
            for name, c in self.cycles.per_pass.items()
        ]
        return {
            "cycles": self.cycles.total,
            "components": self.cycles.components,
            "loops": loops,
            "kernels_counted_by_arithmetic": [k._asdict() for k in self.cycles.kernels],
            "seconds": self.seconds,
            "tokens_per_second": self.tokens_per_second,
            "utilisation": self.utilisation,
        }


def hardware_json(target: Target) -> dict[str, Any]:
    """The target's data-sheet figures."""
    return asdict(target.hardware)
