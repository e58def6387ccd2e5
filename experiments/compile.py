"""Compile a train step or a search for an accelerator that is not here, and report its needs.

    python -m experiments.compile --config=experiments/configs/wmt14_en_de_base.py --target=v5e:4x4

Needs no accelerator and no text, and allocates no arrays. Reports memory by component, collectives,
and for TPUs the cycles that the compiler estimates. An estimate is not a measurement.

Targets are TPU slices such as v5e:4x4 or v5p:2x2x2, GPUs such as h100:8 or h100:2x8 (two hosts of
eight), and cpu:8. Their compilers are extras: pip install -e ".[aot-tpu]" or ".[aot-gpu]".
See docs/accelerators.md.
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from experiments import cli
from experiments.config_io import to_experiment
from experiments.console import print_json

CONFIG = config_flags.DEFINE_config_file("config", help_string="A file of experiments/configs.")
flags.mark_flag_as_required("config")
TARGET = flags.DEFINE_string(
    "target", None, "The devices: v5e:4x4, h100:8, h100:2x8 or cpu:8.", required=True
)
WHAT = flags.DEFINE_enum("what", "train", ["train", "search"], "The program to compile.")
FORMAT = flags.DEFINE_enum(
    "format", "text", ["text", "json"], "How to print the reports: json is one line for each."
)
MESH = flags.DEFINE_multi_string(
    "mesh",
    [],
    "Compile for this mesh instead of config.mesh: fsdp=4, or fsdp=4,tensor=2; data takes the "
    "remaining devices. May be repeated.",
)
BATCHES = flags.DEFINE_enum(
    "batches",
    "auto",
    ["auto", "text", "config"],
    "Where the batch's shape comes from: the batch schedule of the text, or the largest batch that "
    "the config allows. auto: text if it is here.",
)
FIT = flags.DEFINE_bool(
    "fit",
    False,
    "Find what fits: compile for several meshes, with model.remat and gradient accumulation if "
    "nothing else fits, then find the largest data.tokens_per_batch for the best of them.",
)
OUTPUT = flags.DEFINE_string("output", "", "Write program texts and an HTML page into this folder.")
PRECISION = flags.DEFINE_enum(
    "precision", "bfloat16", ["float32", "bfloat16", "int8"], "Of the weights, for --what=search."
)
SENTENCES = flags.DEFINE_integer(
    "sentences", 64, "Sentences per device that are searched together.", lower_bound=1
)
SOURCE_LENGTH = flags.DEFINE_integer(
    "source_length", 32, "Tokens of each source with EOS, for --what=search.", lower_bound=1
)
_SEARCH_FLAGS = "precision", "sentences", "source_length"


def main() -> None:
    """Compile what the flags ask for."""
    # Imports JAX, after the flags are valid.
    from aot.targets import open_target
    from experiments.aot_output import prepare_folder, print_report, write_reports
    from experiments.aot_run import fit_reports, search_reports, train_reports

    experiment = to_experiment(CONFIG.value)
    _check_flags()
    folder = prepare_folder(Path(OUTPUT.value)) if OUTPUT.value else None
    target = open_target(TARGET.value)
    if WHAT.value == "search":
        reports = search_reports(
            experiment,
            target,
            MESH.value,
            precision=PRECISION.value,
            sentences=SENTENCES.value,
            source_length=SOURCE_LENGTH.value,
        )
    elif FIT.value:
        reports = fit_reports(experiment, target, MESH.value, BATCHES.value)
    else:
        reports = train_reports(experiment, target, MESH.value, BATCHES.value)
    done = []
    for report in reports:
        if FORMAT.value == "json":
            print_json(report.to_json())
        else:
            print_report(report)
        done.append(report)
    if folder:
        write_reports(folder, done)


def _check_flags() -> None:
    """Raise ConfigError for a flag that has no effect with the others."""
    from model import ConfigError

    unused = _SEARCH_FLAGS if WHAT.value == "train" else ("batches", "fit")
    for name in unused:
        if flags.FLAGS[name].present:
            raise ConfigError(f"--{name} has no effect with --what={WHAT.value}: leave it out")


if __name__ == "__main__":
    cli.run(main)
