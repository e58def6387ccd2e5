"""Train a Transformer, validate it, and test its best checkpoint.

    python -m experiments.train --config=experiments/configs/demo.py --workdir=DIR

Any value of the config can be changed: --config.optimizer.warmup_steps=8000. The same command
again goes on where the run was. The last line on stdout is JSON; all else is on stderr.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiments import cli
from experiments.config import to_experiment
from experiments.console import print_json

CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of experiments/configs.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.")
DRY_RUN = flags.DEFINE_bool(
    "dry_run",
    False,
    "Train nothing, write nothing: print what it would need, as a line of JSON: parameters, bytes "
    "of a device for them, for the optimizer and for activations, batch shapes, tokens a step.",
)
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    """Run the experiment of the flags."""
    from experiments.dry_run import describe
    from experiments.run import prepare, train  # JAX starts here, after the flags are right

    experiment, workdir = to_experiment(CONFIG.value), Path(WORKDIR.value)
    print_json(
        describe(prepare(experiment, workdir)) if DRY_RUN.value else train(experiment, workdir)
    )


if __name__ == "__main__":
    cli.run(main)
