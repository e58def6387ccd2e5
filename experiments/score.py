"""Score given translations under a trained model: a line of JSON for each pair of lines.

    python -m experiments.score --workdir=DIR --source=FILE --target=FILE

{"score": log-probability of the target with its end, "tokens": how many that are, "perplexity":
of one token, "token_scores": one each}.
"""

from pathlib import Path

from absl import flags

from data.corpus import DataError
from data.text import read_lines
from experiments import cli, decoding
from experiments.console import bar, print_json

flags.adopt_module_key_flags(decoding)
SOURCE = flags.DEFINE_string("source", None, "A file of one sentence a line.")
TARGET = flags.DEFINE_string("target", None, "Its translation, line by line.")
flags.mark_flags_as_required(["source", "target"])


def main() -> None:
    """Print the scores of what the flags name."""
    import math

    from decode.force import score_pairs

    sides = [read_lines(Path(name)) for name in (SOURCE.value, TARGET.value)]
    if len(sides[0]) != len(sides[1]):
        raise DataError(
            f"{SOURCE.value} has {len(sides[0])} lines, but {TARGET.value} has {len(sides[1])}"
        )
    trained = decoding.load()
    with bar("scoring", len(sides[0])) as progress:
        found = score_pairs(trained.model, trained.params, trained.vocabulary, *sides, progress)
    for scores in found:
        total = sum(scores)
        print_json(
            {
                "score": total,
                "tokens": len(scores),
                "perplexity": math.exp(-total / len(scores)),
                "token_scores": scores,
            }
        )


if __name__ == "__main__":
    cli.run(main)
