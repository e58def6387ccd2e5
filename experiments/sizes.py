"""Check the sizes in config.json against the shapes of the stored weights."""

from math import prod
from pathlib import Path

from data.errors import DataError
from experiments.config import Experiment
from experiments.lora import BASE
from interop.imported_model import check_sizes
from train.checkpoint_items import stored_param_shapes
from train.multihost import run_on_all


def check_stored_sizes(workdir: Path, experiment: Experiment, step: int) -> None:
    """Raise DataError if a size in config.json is too large for the checkpoint's weights.

    Reads only shapes, before the model is built, because a corrupt config.json could request more
    memory than exists. Raises CheckpointError if the shapes cannot be read.
    """
    file, checkpoint = workdir / "config.json", workdir / "checkpoints" / str(step)
    rank, model = experiment.lora.rank, experiment.model
    base = workdir / BASE / "0"
    if rank and not base.exists():
        return  # read_base reports it
    weights = run_on_all(lambda: stored_param_shapes(base if rank else checkpoint))
    check_sizes(file, model, len(weights), sum(map(prod, weights)))
    if rank:
        stored = sum(map(prod, run_on_all(lambda: stored_param_shapes(checkpoint))))
        if rank * model.d_model > stored:
            raise DataError(
                f"{file}: lora.rank={rank} would need more numbers than the adapters have, "
                f"{stored:,}"
            )
