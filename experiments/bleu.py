"""BLEU of given translations by three protocols: a line of JSON each, with its signature.

    python -m experiments.bleu --output=FILE --reference=FILE --language=de

13a is sacreBLEU's default, intl its international tokens, atat the paper's: Moses' tokens,
compounds split at hyphens.
"""

from pathlib import Path

from absl import flags

from data.text import read_parallel
from experiments import cli
from experiments.console import print_json

OUTPUT = flags.DEFINE_string("output", None, "Translations, one a line, not tokenised.")
REFERENCE = flags.DEFINE_string("reference", None, "What is right, line by line, not tokenised.")
LANGUAGE = flags.DEFINE_string(
    "language", "de", "The translations' language: Moses' tokeniser goes by its code."
)
flags.mark_flags_as_required(["output", "reference"])


def main() -> None:
    """Print the scores of the files that the flags name."""
    from decode.protocols import bleu_by_protocol

    pairs = read_parallel(Path(OUTPUT.value), Path(REFERENCE.value))
    for name, found in bleu_by_protocol(pairs.source, pairs.target, LANGUAGE.value).items():
        print_json({"protocol": name} | found)


if __name__ == "__main__":
    cli.run(main)
