"""Translate lines of text: as many out as in, in the same order.

    python -m experiments.translate --workdir=DIR < source.txt > target.txt

Typed sentences are answered one by one.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from data.corpus import DataError
from data.files import replace_file
from decode.translate import InputError, Translator
from experiments import cli, decoding

flags.adopt_module_key_flags(decoding)  # so that --help tells them too
INPUT = flags.DEFINE_string("input", "-", "A file of one sentence a line; -: standard input.")
OUTPUT = flags.DEFINE_string("output", "-", "Where translations go; -: standard output.")


def main() -> None:
    """Translate what the flags say."""
    folder = Path(OUTPUT.value).parent
    if not folder.is_dir():
        raise DataError(f"--output={OUTPUT.value}: there is no folder {folder}")
    lines = None if INPUT.value == "-" and sys.stdin.isatty() else list(_lines(INPUT.value))
    translator = decoding.make_translator(decoding.load())
    if lines is None:
        _talk(translator)
        return
    from experiments.run import bar

    with bar("translating", sum(bool(line.strip()) for line in lines)) as progress:
        found = translator.translate(lines, progress)
    text = "".join(f"{line}\n" for line in found)
    if OUTPUT.value == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    replace_file(OUTPUT.value, text.encode())


def _lines(name: str) -> Iterator[str]:
    """Lines of a file or of standard input, split at line feeds only."""
    data = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    lines = data.split(b"\n")
    for number, line in enumerate(lines[:-1] if lines[-1] == b"" else lines, 1):
        try:
            yield line.removesuffix(b"\r").decode()
        except UnicodeDecodeError:
            where = "standard input" if name == "-" else name
            raise DataError(f"{where}, line {number}: not valid UTF-8") from None


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
