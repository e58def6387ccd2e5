"""BLEU of given translations by several protocols: a line of JSON each, with its signature.

    python -m experiments.bleu --output=FILE --reference=FILE --language=de

13a is sacreBLEU's default, intl its international tokens, atat the paper's: Moses' tokens,
compounds split at hyphens. Some languages need other tokens: zh for Chinese, ja-mecab and ko-mecab
for Japanese and Korean where these are installed, char for all of them and for Thai, Lao, Khmer and
Burmese.
"""

from pathlib import Path

from absl import flags

from data.text import read_parallel
from experiments import cli
from experiments.console import log, print_json

OUTPUT = flags.DEFINE_string(
    "output", None, "Translations, one a line, not tokenised.", required=True
)
REFERENCE = flags.DEFINE_string(
    "reference", None, "What is right, line by line, not tokenised.", required=True
)
LANGUAGE = flags.DEFINE_string(
    "language",
    "de",
    "The translations' language, by which words are told apart: a code of ISO 639, as de, deu, "
    "pt-BR, zh_CN or zho_Hans.",
)


def main() -> None:
    """Print the scores of the files that the flags name."""
    from decode.bleu_protocols import bleu_by_protocol, missing_protocols

    for name, install in missing_protocols(LANGUAGE.value).items():
        log(f"{name}, sacreBLEU's own for {LANGUAGE.value}, is left out: {install}")
    pairs = read_parallel(Path(OUTPUT.value), Path(REFERENCE.value))
    for name, found in bleu_by_protocol(pairs.source, pairs.target, LANGUAGE.value).items():
        print_json({"protocol": name} | found)


if __name__ == "__main__":
    cli.run(main)
