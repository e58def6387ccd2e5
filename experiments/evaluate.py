"""Score a trained model's translations: one line of JSON.

python -m experiments.evaluate --workdir=DIR --split=test
python -m experiments.evaluate --workdir=DIR --source=FILE --reference=FILE
"""

import time
from pathlib import Path

from absl import flags

from data.corpus import DataError, Pairs
from data.text import read_lines
from experiments import cli
from model import ConfigError

WORKDIR = flags.DEFINE_string("workdir", None, "A trained run's folder.")
SPLIT = flags.DEFINE_enum("split", None, ("train", "valid", "test"), "A split of the run's data.")
SOURCE = flags.DEFINE_string("source", None, "A file to translate, one sentence a line.")
REFERENCE = flags.DEFINE_string("reference", None, "Its right translation, line by line.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best (by BLEU), last, or a step's number.")
BEAM_SIZE = flags.DEFINE_integer("beam_size", None, "Beam width; default: the run's, 4.")
ALPHA = flags.DEFINE_float("alpha", None, "Length penalty's exponent; default: the run's, 0.6.")
flags.mark_flag_as_required("workdir")


def main() -> None:
    """Translate and score what the flags say."""
    from dataclasses import replace

    from decode.bleu import score
    from experiments import run, workdir

    files = SOURCE.value, REFERENCE.value
    if (SPLIT.value is None) == (files == (None, None)) or (None in files and any(files)):
        raise ConfigError("give either --split=test, or both --source=FILE and --reference=FILE")
    trained = workdir.load(Path(WORKDIR.value), CHECKPOINT.value)
    experiment = trained.experiment
    changes = {"beam_size": BEAM_SIZE.value, "alpha": ALPHA.value}
    changes = {name: value for name, value in changes.items() if value is not None}
    experiment = replace(experiment, search=replace(experiment.search, **changes))
    if SPLIT.value:
        pairs = run.open_split(experiment, SPLIT.value)
    else:
        sides = [read_lines(Path(name)) for name in files]
        if len(sides[0]) != len(sides[1]):
            raise DataError(
                f"{files[0]} has {len(sides[0])} lines, but {files[1]} has {len(sides[1])}"
            )
        pairs = Pairs(*sides)
    sources, references = ([pairs[i][side] for i in range(len(pairs))] for side in (0, 1))

    translator = run.make_translator(
        experiment, trained.model, trained.params, trained.vocabulary, trained.mesh
    )
    start = time.monotonic()
    with run.bar("translating", len(sources)) as progress:
        found = translator.hypotheses(sources, progress)
    seconds = time.monotonic() - start
    scores = score([h.text for h in found], references, experiment.data.target_language)
    run.print_json(
        {name: scores[name] for name in ("bleu", "chrf", "signature")}
        | {
            "sentences": len(sources),
            "seconds": round(seconds, 3),
            "tokens_per_s": round(sum(len(h.tokens) for h in found) / seconds, 1),
            "checkpoint": trained.step,
        }
    )


if __name__ == "__main__":
    cli.run(main)
