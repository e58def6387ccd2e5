"""Flags that name a trained run, and its loaded model."""

from pathlib import Path

from absl import flags

WORKDIR = flags.DEFINE_string("workdir", None, "A trained run's folder.", required=True)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "best",
    "best (by BLEU), last, a step's number, average:5 (the last), average:best:5, "
    "average:1000+2000, or ema; params:last is without the moving average of a run that keeps one.",
)
FSDP = flags.DEFINE_integer(
    "fsdp",
    1,
    "Over how many devices the weights are split, where one cannot hold them.",
    lower_bound=1,
)


def load(checkpoint: str = ""):
    """What the flags name: a workdir's `LoadedModel` model; or another checkpoint of it."""
    import jax  # starts here, once the flags are right

    from experiments import workdir
    from model import ConfigError
    from model.sharding import make_mesh

    try:
        mesh = make_mesh(fsdp=FSDP.value, devices=jax.local_devices())
    except ConfigError as error:
        raise ConfigError(f"--fsdp={FSDP.value}: {error}") from error
    return workdir.load(Path(WORKDIR.value), checkpoint or CHECKPOINT.value, mesh)
