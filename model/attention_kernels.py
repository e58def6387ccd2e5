"""Fused attention kernels, which never store the scores [H,T,S]: for TPUs and for GPUs.

`short` (model/short_attention.py) is for rows of at most 256 positions on TPUs and uses Splash for
longer ones; `splash` is Splash attention, of any length; `cudnn` is cuDNN's flash attention.

A kernel attends within segments of packed rows, never across them, and skips masked blocks where it
can. What it does not support is done by plain attention (model/attention.py): a relative position
bias, dropout of attention weights, weights that are returned, cached steps. Tests compare every
kernel with plain attention; docs/speed.md says which one `auto` chooses, and why.
Axes: B batch, H heads, T query length, S key length, K head width.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from model import short_attention
from model.config import TransformerConfig
from model.masks import Mask
from model.positions import POSITIONS

# The kernel that `auto` stands for, by the platform of the devices. Plain attention is the fastest
# on CPUs; the others were chosen by compiler estimates (experiments/LOG.md, docs/speed.md).
AUTO = {"cpu": "plain", "tpu": "short", "gpu": "cudnn"}
_PLATFORMS = {
    "plain": ("cpu", "tpu", "gpu"),
    "short": ("tpu",),
    "splash": ("tpu",),
    "cudnn": ("gpu",),
}
_LANES = 128  # the kernels work on multiples of this many positions
_MAX_BLOCK = 512


def choose_kernel(config: TransformerConfig, platform: str) -> tuple[str, str]:
    """The kernel for training this model on a platform, and why it is not the requested one.

    The reason is "" if the request is followed; `auto` is always followed.
    """
    requested = config.attention_kernel
    kernel = AUTO.get(platform, "plain") if requested == "auto" else requested
    reason = ""
    if platform not in _PLATFORMS[kernel]:
        reason = f"it does not run on {platform}"
    elif kernel != "plain" and POSITIONS[config.positions].bias:
        reason = f"it does not support model.positions={config.positions}"
    elif kernel != "plain" and config.attention_dropout:
        reason = f"it does not support model.attention_dropout={config.attention_dropout}"
    elif kernel == "cudnn" and config.dtype == "float32":
        reason = "it does not support model.dtype=float32"
    elif kernel != "plain" and config.key_width != config.value_width:
        reason = "it needs model.d_k and model.d_v to be equal"
    if not reason:
        return kernel, ""
    return "plain", "" if requested == "auto" else reason


def fused_attention(kernel: str, q: Array, k: Array, v: Array, mask: Mask) -> Array | None:
    """Attention by a kernel: q [B,H,T,K], k, v [B,Hkv,S,K] -> [B,H,T,K]; None: not supported.

    A query that may attend to no key has a meaningless, finite output.
    """
    if q.ndim != 4 or mask.segments is None or q.shape[-1] != v.shape[-1]:
        return None
    if kernel == "cudnn":
        return _cudnn(q, k, v, mask)
    groups = q.shape[1] // k.shape[1]
    if groups > 1:  # grouped heads: each key head is used by several query heads
        k, v = (jnp.repeat(x, groups, axis=1) for x in (k, v))
    mesh = jax.sharding.get_abstract_mesh()
    tensor = 1 if mesh.empty else mesh.shape["tensor"]
    heads, longest = q.shape[1] // tensor, max(q.shape[2], k.shape[2])
    use_short = kernel == "short" and short_attention.supports(q.shape[3], heads, longest)
    attend = partial(_short_on_device if use_short else _splash_on_device, causal=mask.causal)
    if mesh.empty or mesh.size == 1:
        return attend(q, k, v, *mask.segments)
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    if q.shape[0] % rows or q.shape[1] % tensor:
        return None
    by_heads, ids = PartitionSpec(("data", "fsdp"), "tensor"), PartitionSpec(("data", "fsdp"))
    return jax.shard_map(
        attend,
        in_specs=(by_heads, by_heads, by_heads, ids, ids),
        out_specs=by_heads,
        check_vma=False,  # kernels do not say how their outputs vary
    )(q, k, v, *mask.segments)


def _short_on_device(q, k, v, query_segments, key_segments, *, causal: bool) -> Array:
    """The kernel for short rows, on one device's rows and heads."""
    heads, length, width = q.shape[1:]
    q, query_segments = _pad(q, query_segments)
    k, key_segments = _pad(k, key_segments)
    v, _ = _pad(v, key_segments)
    # As [B,T,H*K], in which the projections compute them: compilers undo this pair of transposes.
    side_by_side = (x.swapaxes(1, 2).reshape(len(x), x.shape[2], -1) for x in (q, k, v))
    mixed = short_attention.short_attention(
        *side_by_side, query_segments, key_segments, heads, causal
    )
    return mixed[:, :length].reshape(-1, length, heads, width).swapaxes(1, 2)


def _splash_on_device(q, k, v, query_segments, key_segments, *, causal: bool) -> Array:
    """Splash attention, on one device's rows and heads."""
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

    heads, length = q.shape[1:3]
    q, query_segments = _pad(q * q.shape[-1] ** -0.5, query_segments)
    k, key_segments = _pad(k, key_segments)
    v, _ = _pad(v, key_segments)
    sizes = q.shape[2], k.shape[2]
    block_q, block_kv = map(_block, sizes)
    kind: Any = masks.CausalMask if causal else masks.FullMask
    kernel = splash.make_splash_mha(
        masks.MultiHeadMask([kind(sizes) for _ in range(heads)]),
        block_sizes=splash.BlockSizes(
            block_q=block_q,
            block_kv=block_kv,
            block_q_dkv=block_q,
            block_kv_dkv=block_kv,
            block_q_dq=block_q,
            block_kv_dq=block_kv,
        ),
        head_shards=1,
        q_seq_shards=1,
    )
    segments = splash.SegmentIds(query_segments, key_segments)
    return jax.vmap(kernel)(q, k, v, segments)[:, :, :length]


def _pad(x: Array, segments: Array) -> tuple[Array, Array]:
    """Pad x [B,H,T,K] and segments [B,T] to a multiple of the block; padding is a segment."""
    padding = -x.shape[2] % _LANES
    x = jnp.pad(x, ((0, 0), (0, 0), (0, padding), (0, 0)))
    missing = max(x.shape[2] - segments.shape[1], 0)
    return x, jnp.pad(segments, ((0, 0), (0, missing)), constant_values=0)


def _block(length: int) -> int:
    """The largest block of at most `_MAX_BLOCK` positions that divides a padded length."""
    return max(b for b in range(_LANES, _MAX_BLOCK + 1, _LANES) if length % b == 0)


def _cudnn(q: Array, k: Array, v: Array, mask: Mask) -> Array:
    """cuDNN's flash attention; packed rows by a mask, which is the same for all heads."""
    across = lambda x: x.swapaxes(1, 2)  # noqa: E731
    return across(
        jax.nn.dot_product_attention(
            across(q),
            across(k),
            across(v),
            mask=mask.dense.reshape(mask.dense.shape[0], 1, *mask.dense.shape[-2:]),
            implementation="cudnn",
        )
    )
