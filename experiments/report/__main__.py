"""Write an HTML report of one run, or of several side by side.

    python -m experiments.report --workdir=DIR [DIR ...]

Curves, translations, settings and what the runs ran on, in one file that needs no network. It is
DIR/report.html, which every training writes at its end, or of several runs DIR/comparison.html in
the folder of the first; its path is printed.
"""

from pathlib import Path

from absl import flags

from experiments import cli
from experiments.console import log

WORKDIR = flags.DEFINE_multi_string(
    "workdir",
    None,
    "A trained run's folder; more may follow it, by themselves or each as a flag.",
    required=True,
)
OUTPUT = flags.DEFINE_string("output", None, "Another file for the page.")
TRANSLATE = flags.DEFINE_bool(
    "translate",
    False,
    "Translate the test split of those runs that have not kept its translations, by the best "
    "checkpoint, and keep them.",
)


def main(more: list[str]) -> None:
    """Read the runs, and write their page."""
    from experiments.report.page import REPORT, write_report
    from experiments.report.record import read_runs
    from experiments.translations import make_translations

    workdirs = [Path(name) for name in WORKDIR.value + more]
    runs = read_runs(workdirs)
    if TRANSLATE.value:
        for run in runs:
            if not run.translations:
                make_translations(run.workdir)
        runs = read_runs(workdirs)
    for line in (line for run in runs for line in run.damaged):
        log(f"warning: {line}")
    for run in runs:
        if not run.translations:
            log(f"{run.workdir} has no translations of its test split: --translate makes them")
    output = Path(OUTPUT.value or workdirs[0] / (REPORT if len(runs) == 1 else "comparison.html"))
    write_report(runs, output)
    print(output)


if __name__ == "__main__":
    cli.run(main, takes_more=True)
