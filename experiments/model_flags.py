"""Flags that name a trained run and its checkpoint, and the loaded model."""

from pathlib import Path

from absl import flags

WORKDIR = flags.DEFINE_string("workdir", None, "A trained run's folder.", required=True)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint",
    "best",
    "best (by BLEU), last, a step number, average:5 (of the last 5), average:best:5, "
    "average:1000+2000, or ema; params:last ignores the moving average of a run that has one.",
)
FSDP = flags.DEFINE_integer(
    "fsdp",
    1,
    "Number of devices over which the weights are sharded, if one device is too small.",
    lower_bound=1,
)


def check_checkpoints(names: list[str]) -> None:
    """Raise ConfigError without a run, CheckpointError if it lacks one of these checkpoints."""
    from experiments.workdir import read_config  # imported after the flags are valid
    from train.checkpoint import CheckpointManager

    read_config(Path(WORKDIR.value))
    with CheckpointManager(Path(WORKDIR.value) / "checkpoints") as checkpoints:
        for name in names:
            checkpoints.resolve(name)


def load(checkpoint: str = ""):
    """Load the model of the flags as a `LoadedModel`; `checkpoint` overrides the flag."""
    import jax  # imported after the flags are valid

    from experiments import workdir
    from model import ConfigError
    from model.sharding import make_mesh

    try:
        mesh = make_mesh(fsdp=FSDP.value, devices=jax.local_devices())
    except ConfigError as error:
        raise ConfigError(f"--fsdp={FSDP.value}: {error}") from error
    return workdir.load(Path(WORKDIR.value), checkpoint or CHECKPOINT.value, mesh)
