"""environment.jsonl: versions, devices and mesh of each start."""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import jax
import msgspec
from jax.sharding import Mesh

from data.atomic_write import write_atomic
from data.regular_file import read_regular
from experiments.git_commit import code_commit

FILE = "environment.jsonl"


class Start(msgspec.Struct):
    """The fields of a line of environment.jsonl."""

    date: str
    commit: str | None  # null if unknown
    python: str
    packages: dict[str, str]
    platform: str
    backend: str
    device: str
    devices: int
    processes: int
    mesh: dict[str, int]


_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "sentencepiece")


def record_start(workdir: Path, mesh: Mesh) -> None:
    """Append this process's environment to the log of starts in `workdir`. Raises DataError."""
    file = workdir / FILE
    content = read_regular(file) if file.exists() else b""
    if content and not content.endswith(b"\n"):
        content += b"\n"
    write_atomic(file, content + json.dumps(describe_environment(mesh)).encode() + b"\n")


def describe_environment(mesh: Mesh) -> dict:
    """Date (UTC), commit, versions, platform, and the kind and number of devices of the mesh."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": code_commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "backend": jax.default_backend(),
        "device": mesh.devices.flat[0].device_kind,
        "devices": mesh.size,
        "processes": jax.process_count(),
        "mesh": dict(mesh.shape),
    }
