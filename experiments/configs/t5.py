"""The encoder-decoders of T5 1.1 (Raffel et al. 2020; Shazeer 2020), trained from scratch.

    python -m experiments.train --config=experiments/configs/t5.py:large --workdir=DIR

Sizes: small, base, large, xl and xxl have 77 million to 11 billion parameters. The layers of models
with 24 layers are scanned and recomputed, and their parameters are sharded over all devices. Not
run by us; docs/pods.md has what they need on TPUs and GPUs, by ahead-of-time compilation.
"""

from experiments.configs import wmt14_en_de_base
from experiments.did_you_mean import did_you_mean
from model import ConfigError

# d_model, d_ff, num_heads, layers of encoder and of decoder; heads have 64 dimensions.
SIZES = {
    "small": (512, 1024, 6, 8),
    "base": (768, 2048, 12, 12),
    "large": (1024, 2816, 16, 24),
    "xl": (2048, 5120, 32, 24),
    "xxl": (4096, 10240, 64, 24),
}


def get_config(size: str = "base"):
    """The text and schedule of the paper's base model with a T5 1.1 model."""
    if size not in SIZES:
        raise ConfigError(f"t5 has no size {size!r}{did_you_mean(size, SIZES)}")
    d_model, d_ff, num_heads, layers = SIZES[size]
    config = wmt14_en_de_base.get_config()
    config.data.vocab_size = 32_128
    config.model.update(
        d_model=d_model,
        d_ff=d_ff,
        num_heads=num_heads,
        d_k=64,
        d_v=64,
        encoder_layers=layers,
        decoder_layers=layers,
        activation="geglu_tanh",
        norm="pre",
        norm_kind="rms",
        positions="t5_bias",
        mlp_bias=False,
        tying="none",
        scale_embedding=False,
        dtype="bfloat16",
    )
    if layers == 24:
        config.model.update(scan_layers=True, remat="full")
        config.mesh.update(data=1, fsdp=-1)
    return config
