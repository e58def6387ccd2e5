"""The flags that name a trained run, and the model that they name."""

from pathlib import Path

from absl import flags

WORKDIR = flags.DEFINE_string("workdir", None, "A trained run's folder.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best (by BLEU), last, or a step's number.")
flags.mark_flag_as_required("workdir")


def load():
    """What the flags name: a workdir's `Trained` model."""
    from experiments import memory, workdir  # JAX starts here, once the flags are right

    memory.keep_freed()
    return workdir.load(Path(WORKDIR.value), CHECKPOINT.value)
