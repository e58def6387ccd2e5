"""Targets of a compilation: accelerators by name and number, and what their hardware can do.

v5e:4x4, v5p:4x4x8    TPU slices of any topology that the installed libtpu knows
h100:8, h100:2x8      8 GPUs of one host; 2 hosts of 8 GPUs
cpu:8                 8 simulated devices of this machine's CPU
"""

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from aot.gpu_specs import GPUS, target_config
from model.config import ConfigError

GIB = 1 << 30


@dataclass(frozen=True)
class Hardware:
    """One device: figures of its vendor's data sheet."""

    kind: str  # tpu, gpu or cpu
    memory: int  # bytes; 0: not limited here
    flops: float = 0.0  # bfloat16 matrix products per second without sparsity; 0: unknown
    bandwidth: float = 0.0  # bytes of memory per second
    clock: float = 0.0  # Hz, for estimated cycles: TPUs only
    flops_per_cycle: float = 0.0  # of all matrix units of one device: TPUs only


def _tpu(memory_gib: float, tflops: float, gigabytes: float, clock_ghz: float) -> Hardware:
    return Hardware(
        "tpu",
        int(memory_gib * GIB),
        tflops * 1e12,
        gigabytes * 1e9,
        clock_ghz * 1e9,
        tflops * 1e12 / (clock_ghz * 1e9),
    )


# Memory, peak bfloat16 rate and bandwidth of one JAX device, from cloud.google.com/tpu/docs; the
# memory is what the compiler lets a program use. A v4 or v5p chip is one device of two cores.
TPUS = {
    "v4": _tpu(30.75, 275, 1228, 1.05),
    "v5e": _tpu(15.75, 197, 819, 1.5),
    "v5p": _tpu(95.0, 459, 2765, 1.75),
    "v6e": _tpu(31.25, 918, 1640, 1.75),
}


@dataclass(frozen=True)
class Target:
    """A number of devices of one kind."""

    text: str  # as the user wrote it
    name: str
    hardware: Hardware
    devices: Sequence[Any]  # of JAX; only for compilation, unless they are CPUs

    @property
    def count(self) -> int:
        """The number of devices."""
        return len(self.devices)


def open_target(text: str) -> Target:
    """Find the devices of a target such as "v5e:4x4". Raises ConfigError.

    Call it before JAX uses any device: it limits JAX to the CPU of this machine.
    """
    name, _, size = text.strip().lower().partition(":")
    if name == "cpu":
        return Target(text, name, Hardware("cpu", 0), _cpus(text, size))
    jax.config.update("jax_platforms", "cpu")
    # A program for devices that are not here cannot be read from the persistent cache.
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    if name in GPUS:
        gpu = GPUS[name]
        hardware = Hardware("gpu", gpu.memory, gpu.tflops * 1e12, gpu.bandwidth)
        return Target(text, name, hardware, _gpus(text, name, size))
    if re.fullmatch(r"v\d+\w*|tpu\w+", name):
        return Target(text, name, TPUS.get(name, Hardware("tpu", 0)), _tpus(text, name, size))
    raise ConfigError(
        f"--target={text} is unknown: use a TPU ({', '.join(TPUS)}) with a topology, as in "
        f"v5e:4x4, a GPU ({', '.join(GPUS)}) with a number, as in h100:8, or cpu:8"
    )


def _numbers(text: str, size: str, least: int, most: int, example: str) -> list[int]:
    parts = size.split("x")
    if not least <= len(parts) <= most or not all(re.fullmatch(r"[1-9]\d{0,5}", p) for p in parts):
        raise ConfigError(f"--target={text}: the part after ':' must be like {example}")
    return [int(part) for part in parts]


def _cpus(text: str, size: str) -> Sequence[Any]:
    (count,) = _numbers(text, size or "1", 1, 1, "8")
    jax.config.update("jax_platforms", "cpu")
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # JAX already has its devices
        pass
    devices = jax.devices()
    if len(devices) < count:
        raise ConfigError(f"--target={text}: JAX already runs with {len(devices)} devices")
    return devices[:count]


def _tpus(text: str, name: str, size: str) -> Sequence[Any]:
    dimensions = _numbers(text, size, 2, 3, "2x2 or 2x2x1")
    # libtpu otherwise asks a metadata server for its machine, and locks the machine's TPU.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(f"--target={text} needs a compiler: {_install('aot-tpu')}")
    options = {"chip_config_name": "megacore"} if name == "v4" else {}  # one device of two cores
    try:
        return (
            _topologies()
            .get_topology_desc(
                platform="tpu", topology_name=f"{name}:{'x'.join(map(str, dimensions))}", **options
            )
            .devices
        )
    except Exception as error:  # libtpu raises several types
        message = " ".join(str(error).split())
        raise ConfigError(f"--target={text}: libtpu rejects this topology: {message}") from None


def _gpus(text: str, name: str, size: str) -> Sequence[Any]:
    numbers = _numbers(text, size or "1", 1, 2, "8, or 2x8 for two hosts")
    hosts, devices = numbers if len(numbers) == 2 else (1, *numbers)
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    plugins = importlib.util.find_spec("jax_plugins")
    if plugins is None or importlib.util.find_spec("jax_plugins.xla_cuda13") is None:
        raise ConfigError(f"--target={text} needs a compiler: {_install('aot-gpu')}")
    try:
        return (
            _topologies()
            .get_topology_desc(
                platform="cuda",
                target_config=target_config(name),
                topology=f"1x{hosts}x{devices}",
            )
            .devices
        )
    except Exception as error:  # JAX raises several types without its plugin
        message = " ".join(str(error).split())
        raise ConfigError(f"--target={text}: the compiler rejects it: {message}") from None


def _topologies() -> Any:
    from jax.experimental import topologies

    return topologies


def _install(extra: str) -> str:
    return f"""pip install -e ".[{extra}]\""""
