"""Inspect training data: duplicates, languages, lengths, vocabulary coverage, resources.

    python -m experiments.inspect_data --config=experiments/configs/text.py --config.data.path=DIR

Prints counts, duplicates, copies, overlap of the splits, scripts and languages, lengths, pairs that
the filters drop, vocabulary coverage, samples, and the resources that training needs. Warnings name
file and line. Lengths are in tokens of the vocabulary that training would learn, or with --workdir
of the run's vocabulary; learning it takes most of the time. Writes no files.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiments import cli
from experiments.config_io import to_experiment
from experiments.console import COMPILE_HINT, log
from experiments.temporary_folders import temporary_folder

CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of experiments/configs.")
WORKDIR = flags.DEFINE_string(
    "workdir", None, "A run's folder, whose vocabulary is used and whose settings are compared."
)
FORMAT = flags.DEFINE_enum(
    "format", "text", ("text", "jsonl"), "text, or jsonl: one line of JSON per section and warning."
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
    "Pieces that occur less often than this in the training text are counted as rare.",
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
    log(COMPILE_HINT)


if __name__ == "__main__":
    cli.run(main)
