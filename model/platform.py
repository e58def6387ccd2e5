"""The platform that a program is traced for, which may not be the one that traces it."""

from typing import Any

import jax


def current_platform() -> str:
    """The platform of the mesh in use: "cpu", "tpu" or "gpu"; without a mesh, JAX's default.

    Programs are also compiled ahead of time for devices that are not here (aot/).
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return _name(jax.default_backend()) if device is None else device_platform(device)


def device_platform(device: Any) -> str:
    """The platform of a device: "cpu", "tpu" or "gpu"."""
    return _name(device.platform)


def _name(platform: str) -> str:
    return "gpu" if platform in ("cuda", "rocm") else platform
