"""GPUs as the XLA compiler knows them, without a GPU: device properties by name.

Figures are those of the vendor's data sheets and of `cudaGetDeviceProperties`.
"""

from typing import NamedTuple


class Gpu(NamedTuple):
    """One GPU's properties."""

    description: str
    major: int  # of the compute capability, whose minor part is 0
    cores: int  # streaming multiprocessors
    fpus: int  # float32 units of a core
    clock_ghz: float
    memory: int  # bytes
    bandwidth: float  # bytes per second
    l2_bytes: int
    shared_bytes: int  # of a core
    tflops: float  # dense bfloat16


GPUS = {
    "a100": Gpu("NVIDIA A100-SXM4-80GB", 8, 108, 64, 1.41, 85_100_000_000, 2.039e12, 41_943_040,
                167_936, 312),
    "h100": Gpu("NVIDIA H100 80GB HBM3", 9, 132, 128, 1.98, 84_942_979_072, 3.352e12, 52_428_800,
                233_472, 989),
    "h200": Gpu("NVIDIA H200", 9, 132, 128, 1.98, 150_000_000_000, 4.8e12, 52_428_800,
                233_472, 989),
    "b200": Gpu("NVIDIA B200", 10, 148, 128, 1.965, 191_000_000_000, 8.0e12, 132_644_864,
                233_472, 2250),
}  # fmt: skip
_CUDA, _CUDNN = 13, (9, 10, 2)  # the versions that programs are compiled for


def target_config(name: str) -> str:
    """A GPU's `GpuTargetConfigProto` in text format."""
    gpu = GPUS[name]
    major, minor, patch = _CUDNN
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: {gpu.shared_bytes}
  threads_per_core_limit: 2048
  core_count: {gpu.cores}
  fpus_per_core: {gpu.fpus}
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: {gpu.bandwidth:.0f}
  l2_cache_size: {gpu.l2_bytes}
  clock_rate_ghz: {gpu.clock_ghz}
  device_memory_size: {gpu.memory}
  shared_memory_per_block_optin: {gpu.shared_bytes - 1024}
  cuda_compute_capability {{ major: {gpu.major} }}
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: {major} minor: {minor} patch: {patch} }}
runtime_version {{ major: {_CUDA} }}
device_description_str: "{gpu.description}"
"""
