"""Translate lines of text: as many out as in, in the same order.

    python -m experiments.translate --workdir=DIR < source.txt > target.txt

Typed sentences are answered one by one.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from absl import flags

from data.corpus import DataError
from decode.search import METHODS
from decode.translate import InputError, Translator
from experiments import cli

WORKDIR = flags.DEFINE_string("workdir", None, "A trained run's folder.")
INPUT = flags.DEFINE_string("input", "-", "A file of one sentence a line; -: standard input.")
OUTPUT = flags.DEFINE_string("output", "-", "Where translations go; -: standard output.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best (by BLEU), last, or a step's number.")
METHOD = flags.DEFINE_enum("method", "beam", METHODS, "How to search.")
BEAM_SIZE = flags.DEFINE_integer("beam_size", None, "Beam width; default: the run's, 4.")
ALPHA = flags.DEFINE_float("alpha", None, "Length penalty's exponent; default: the run's, 0.6.")
MAX_INPUT = flags.DEFINE_string(
    "max_input",
    "split:256",
    "What becomes of a line of more tokens: split:TOKENS translates it in pieces, cut at sentence "
    "ends or between words; refuse:TOKENS stops with the line's number.",
)
flags.mark_flag_as_required("workdir")


def main() -> None:
    """Translate what the flags say."""
    folder = Path(OUTPUT.value).parent
    if not folder.is_dir():
        raise DataError(f"--output={OUTPUT.value}: there is no folder {folder}")
    lines = None if INPUT.value == "-" and sys.stdin.isatty() else list(_lines(INPUT.value))
    translator = _translator()
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
    output = Path(OUTPUT.value)
    if output.exists() and not output.is_file():  # a device or a pipe is written to, not replaced
        output.write_text(text, encoding="utf-8")
        return
    temporary = output.with_name(f"{output.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, output)


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


def _translator() -> Translator:
    from experiments import workdir

    trained = workdir.load(Path(WORKDIR.value), CHECKPOINT.value)
    search = trained.experiment.search
    return Translator(
        trained.model,
        trained.params,
        trained.vocabulary,
        trained.mesh,
        method=METHOD.value,
        beam_size=search.beam_size if BEAM_SIZE.value is None else BEAM_SIZE.value,
        alpha=search.alpha if ALPHA.value is None else ALPHA.value,
        extra_length=search.extra_length,
        max_input=MAX_INPUT.value,
    )


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
