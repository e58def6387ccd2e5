"""Translate lines of text: as many out as in, in the same order.

    python -m experiments.translate --workdir=DIR < source.txt > target.txt

Typed sentences are answered one by one.
"""

import os
import sys
from pathlib import Path

from absl import flags

from data.corpus import DataError
from data.files import replace_file
from data.text import read_bytes, split_lines
from decode.translate import InputError, Translator
from experiments import cli, decoding
from experiments.console import bar

flags.adopt_module_key_flags(decoding)  # so that --help tells them too
INPUT = flags.DEFINE_string("input", "-", "A file of one sentence a line; -: standard input.")
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
        found = translator.translate(lines, progress)
    text = "".join(f"{line}\n" for line in found)
    if OUTPUT.value == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    replace_file(OUTPUT.value, text.encode())


def _lines(name: str) -> list[str]:
    if name == "-":
        return split_lines(sys.stdin.buffer.read(), "standard input")
    return split_lines(read_bytes(Path(name)), name)


def _talk(translator: Translator) -> None:
    """Answer each typed line at once, until the end of input."""
    print("Type a sentence; Ctrl-D ends.", file=sys.stderr)
    for line in sys.stdin.buffer:
        try:
            print(translator.translate([line.decode().rstrip("\r\n")])[0], flush=True)
        except (InputError, UnicodeDecodeError) as error:
            print(f"heed: error: {error}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
