"""Write an HTML report of one run, or of several side by side.

    python -m experiments.report --workdir=DIR [DIR ...]

Curves, translations, settings and hardware of the runs, in one file that needs no network:
DIR/report.html, which training also writes when it finishes, or for several runs
DIR/comparison.html in the folder of the first. Prints its path.
"""

from pathlib import Path

from absl import flags

from experiments import cli
from experiments.console import log

WORKDIR = flags.DEFINE_multi_string(
    "workdir",
    None,
    "A trained run's folder; further folders follow as plain arguments or as repeated flags.",
    required=True,
)
OUTPUT = flags.DEFINE_string("output", None, "File for the page, instead of the default.")
TRANSLATE = flags.DEFINE_bool(
    "translate",
    False,
    "Translate the test split of runs that have no translations.jsonl, with the best checkpoint, "
    "and store the translations.",
)


def main(arguments: list[str]) -> None:
    """Read the runs, and write their page."""
    from data.atomic_write import write_output
    from experiments.report.page import REPORT, render, write_report
    from experiments.report.record import read_runs
    from experiments.temporary_folders import check_output_file
    from experiments.translations import translate_test_split

    if OUTPUT.value:
        check_output_file(Path(OUTPUT.value))
    workdirs = [Path(name) for name in WORKDIR.value + arguments]
    runs = read_runs(workdirs)
    if TRANSLATE.value:
        for run in runs:
            if not run.translations:
                translate_test_split(run.workdir)
        runs = read_runs(workdirs)
    for line in (line for run in runs for line in run.corrupt):
        log(f"warning: {line}")
    for run in runs:
        if not run.translations:
            log(f"{run.workdir} has no translations of its test split: --translate makes them")
    if OUTPUT.value:
        output = Path(OUTPUT.value)
        write_output(output, render(runs).encode())
    else:
        output = workdirs[0] / (REPORT if len(runs) == 1 else "comparison.html")
        write_report(runs, output)
    print(output)


if __name__ == "__main__":
    cli.run(main, takes_arguments=True)
