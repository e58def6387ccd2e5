"""Translate lines of text: as many out as in, in the same order.

    python -m experiments.translate --workdir=DIR < source.txt > target.txt

Typed sentences are answered one by one.
"""

import json
import os
import sys
from pathlib import Path

from absl import flags

from data.corpus import DataError
from data.files import replace_file
from data.text import read_bytes, split_lines
from decode.translate import Hypothesis, InputError, Translator
from experiments import cli, decoding
from experiments.console import bar, note

flags.adopt_module_key_flags(decoding)  # so that --help tells them too
INPUT = flags.DEFINE_string("input", "-", "A file of one sentence a line; -: standard input.")
FORMAT = flags.DEFINE_enum("format", "text", ("text", "jsonl"), "jsonl: a line of JSON for each "
                           "line, with scores, tokens and the n best.")  # fmt: skip
PREFIX = flags.DEFINE_string("prefix", "", "What every translation begins with.")
OUTPUT = flags.DEFINE_string("output", "-", "Where translations go; -: standard output.")


def main() -> None:
    """Translate what the flags say."""
    output = Path(OUTPUT.value)
    if not output.parent.is_dir():
        raise DataError(f"--output={output}: there is no folder {output.parent}")
    if output.is_dir() or not os.access(output if output.exists() else output.parent, os.W_OK):
        raise DataError(f"--output={output} cannot be written to")
    lines = None if INPUT.value == "-" and sys.stdin.isatty() else _lines(INPUT.value)
    translator = decoding.make_translator(decoding.load())
    if lines is None:
        _talk(translator)
        return
    with bar("translating", len(lines)) as progress:
        found = translator.hypotheses(lines, progress, [PREFIX.value] * len(lines))
    note(f"search shapes compiled: {len(translator.shapes)}")
    text = "".join(f"{_written(each, translator)}\n" for each in found)
    if OUTPUT.value == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    replace_file(OUTPUT.value, text.encode())


def _lines(name: str) -> list[str]:
    if name == "-":
        return split_lines(sys.stdin.buffer.read(), "standard input")
    return split_lines(read_bytes(Path(name)), name)


def _written(found: list[Hypothesis], translator: Translator) -> str:
    """A sentence's hypotheses as the line of its --format."""
    if FORMAT.value == "text":
        return found[0].text
    pieces = translator.vocabulary.target.pieces
    each = [
        {
            "text": hypothesis.text,
            "score": hypothesis.score,
            "tokens": pieces(hypothesis.tokens),
            "token_scores": hypothesis.token_scores,
        }
        for hypothesis in found
    ]
    return json.dumps(each[0] | {"n_best": each}, ensure_ascii=False)


def _talk(translator: Translator) -> None:
    """Answer each typed line at once, until the end of input."""
    print("Type a sentence; Ctrl-D ends.", file=sys.stderr)
    for line in sys.stdin.buffer:
        try:
            (found,) = translator.hypotheses([line.decode().rstrip("\r\n")], None, [PREFIX.value])
            print(_written(found, translator), flush=True)
        except (InputError, UnicodeDecodeError) as error:
            print(f"heed: error: {error}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
