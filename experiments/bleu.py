"""Compute BLEU of a translation file by several protocols: a line of JSON each, with its signature.

    python -m experiments.bleu --output=FILE --reference=FILE --language=de

13a is sacreBLEU's default tokenizer, intl its international one; atat is the paper's: Moses' tokens
with compounds split at hyphens. Some languages need other tokenizers: zh for Chinese, ja-mecab and
ko-mecab for Japanese and Korean if these are installed, char for all of them and for Thai, Lao,
Khmer and Burmese.
"""

from pathlib import Path

from absl import flags

from data.text import read_parallel
from experiments import cli
from experiments.console import log, print_json

OUTPUT = flags.DEFINE_string(
    "output", None, "Translations, one per line, not tokenized.", required=True
)
REFERENCE = flags.DEFINE_string(
    "reference", None, "Reference translations, line by line, not tokenized.", required=True
)
LANGUAGE = flags.DEFINE_string(
    "language",
    "de",
    "Language of the translations, for tokenization: an ISO 639 code such as de, deu, pt-BR, zh_CN "
    "or zho_Hans.",
)


def main() -> None:
    """Score the files of the flags."""
    from decode.bleu_protocols import bleu_by_protocol, missing_protocols

    for name, install in missing_protocols(LANGUAGE.value).items():
        log(f"skipped {name}, sacreBLEU's tokenizer for {LANGUAGE.value}: {install}")
    pairs = read_parallel(Path(OUTPUT.value), Path(REFERENCE.value), pipes=True)
    for name, scores in bleu_by_protocol(pairs.source, pairs.target, LANGUAGE.value).items():
        print_json({"protocol": name} | scores)


if __name__ == "__main__":
    cli.run(main)
