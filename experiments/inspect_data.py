"""Inspect the text of a run before training.

    python -m experiments.inspect_data --config=experiments/configs/text.py --config.data.path=DIR

Counts, duplicates, copies, overlap of the splits, scripts and languages, lengths, what the filters
drop, vocabulary coverage, samples, and the resources of the training. Warnings name file and
line. Lengths are in tokens of the vocabulary that training would learn, or of the run's own with
--workdir; learning it takes most of the time. Nothing is written.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiments import cli
from experiments.config_io import to_experiment
from experiments.temporary_folders import temporary_folder

CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of experiments/configs.")
WORKDIR = flags.DEFINE_string(
    "workdir", None, "A run's folder: its own vocabulary is used, and its settings are compared."
)
FORMAT = flags.DEFINE_enum(
    "format", "text", ("text", "jsonl"), "text for people, or jsonl: one line of JSON per finding."
)
MAX_WARNINGS = flags.DEFINE_integer(
    "max_warnings",
    None,
    "Maximum printed warnings per kind and split; 0: all. Default: 5 as text, all as jsonl.",
    lower_bound=0,
)
RARE_BELOW = flags.DEFINE_integer(
    "rare_below",
    20,
    "Subwords that occur less often than this in the training text are counted as rare.",
    lower_bound=1,
)
flags.mark_flag_as_required("config")


def main() -> None:
    """Inspect the text of the flags' experiment."""
    from experiments.inspection.runner import inspect_data

    experiment = to_experiment(CONFIG.value)
    with temporary_folder() as folder:
        workdir = Path(WORKDIR.value or folder / "run")
        inspect_data(experiment, workdir, FORMAT.value, MAX_WARNINGS.value, RARE_BELOW.value)


if __name__ == "__main__":
    cli.run(main)
