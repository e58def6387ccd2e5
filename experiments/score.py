"""Score given translations with a model: one line of JSON per pair.

    python -m experiments.score --workdir=DIR --source=FILE --target=FILE

{"score": log-probability of the target with EOS, "tokens": number of tokens, "perplexity": per
token, "token_scores": one per token}. null is a number that is not finite, such as the perplexity
of a score below -709 per token.
"""

from pathlib import Path

from absl import flags

from data.text import read_parallel
from experiments import cli, model_flags
from experiments.console import print_json, progress_bar

flags.adopt_module_key_flags(model_flags)  # so that --help shows them too
SOURCE = flags.DEFINE_string("source", None, "A file with one sentence per line.", required=True)
TARGET = flags.DEFINE_string("target", None, "Its translation, line by line.", required=True)
MAX_TOKENS = flags.DEFINE_integer(
    "max_tokens",
    2048,
    "Maximum tokens of a line with EOS; a longer one is an error. Memory grows with the square.",
    lower_bound=1,
)


def main() -> None:
    """Print the scores of the pairs of the flags."""
    from decode.teacher_forcing import perplexity, score_pairs

    pairs = read_parallel(Path(SOURCE.value), Path(TARGET.value), pipes=True)
    trained = model_flags.load()
    model = trained.model, trained.params, trained.vocabulary
    with progress_bar("scoring", len(pairs)) as progress:
        pair_scores = score_pairs(*model, pairs.source, pairs.target, progress, MAX_TOKENS.value)
    for scores in pair_scores:
        print_json(
            {
                "score": sum(scores),
                "tokens": len(scores),
                "perplexity": perplexity(scores),
                "token_scores": scores,
            }
        )


if __name__ == "__main__":
    cli.run(main)
