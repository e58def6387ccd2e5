"""Translate lines of text: one output line per input line, in order.

    python -m experiments.translate --workdir=DIR < source.txt > target.txt

Sentences typed in a terminal are translated one by one.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from data.atomic_write import write_output
from data.errors import DataError
from data.printable import json_line, printable, text_line
from data.text import read_bytes, split_lines
from decode.hypotheses import Hypothesis
from decode.options import InputError
from decode.translate import Translator
from experiments import cli, model_flags, search_flags
from experiments.console import log, progress_bar, read_stdin, write_line
from experiments.temporary_folders import check_output_file

if TYPE_CHECKING:
    from experiments.workdir import LoadedModel


flags.adopt_module_key_flags(search_flags)  # so that --help shows them too
INPUT = flags.DEFINE_string("input", "-", "A file with one sentence per line; -: standard input.")
FORMAT = flags.DEFINE_enum("format", "text", ("text", "jsonl"), "jsonl: a line of JSON for each "
                           "line, with scores, tokens and the n best.")  # fmt: skip
ATTENTION = flags.DEFINE_bool(
    "attention",
    False,
    "With --format=jsonl: include cross-attention, one row per token, from the alignment layer.",
)
STREAM = flags.DEFINE_bool(
    "stream",
    False,
    "Stream partial translations to stderr: one line of JSON per token, and a last one "
    '("done") with the final text; for typed sentences, the text, updated in place.',
)
PREFIX = flags.DEFINE_string(
    "prefix",
    "",
    "Prefix of every translation. Its last word may be completed, unless a space or punctuation "
    "follows it.",
)
PREFIX_FILE = flags.DEFINE_string(
    "prefix_file", "", "A file with the prefix of each line's translation, as in --prefix."
)
REQUIRE = flags.DEFINE_multi_string(
    "require", [], "A word or phrase that every translation contains; repeatable."
)
REQUIRE_FILE = flags.DEFINE_string(
    "require_file",
    "",
    "A file with the required words and phrases of each line's translation, line by line, "
    "separated by tabs.",
)
OUTPUT = flags.DEFINE_string("output", "-", "File for the translations; -: standard output.")


def main() -> None:
    """Translate the input of the flags."""
    if OUTPUT.value != "-":
        check_output_file(Path(OUTPUT.value))
    typed = INPUT.value == "-" and sys.stdin is not None and sys.stdin.isatty()
    lines = None if typed else _lines(INPUT.value)
    n_best_requested = (search_flags.N_BEST.value or 1) > 1
    for flag, requested in (
        (ATTENTION, ATTENTION.value),
        (search_flags.N_BEST, n_best_requested),
    ):
        if requested and FORMAT.value == "text":
            raise InputError(f"--{flag.name} has no meaning with --format=text: set --format=jsonl")
    if lines is None and OUTPUT.value != "-":
        raise InputError("--output is for --input, not for typed sentences")
    prefixes, required = _constraints(lines)
    trained = model_flags.load()
    on_token = _print_partial if lines is None else _print_event
    translator = search_flags.translator_from_flags(trained, on_token if STREAM.value else None)
    if lines is None:
        translator.hypotheses([""], None, prefixes, required)  # raises for impossible constraints
        _translate_typed(trained, translator, prefixes, required)
        return
    with progress_bar("translating", len(lines)) as progress:
        hypotheses = translator.hypotheses(lines, progress, prefixes, required)
    log(f"search shapes compiled: {len(translator.shapes)}")
    text = "".join(f"{line}\n" for line in _format(hypotheses, trained))
    if OUTPUT.value == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    write_output(OUTPUT.value, text.encode())


def _lines(name: str) -> list[str]:
    if name == "-":
        return split_lines(read_stdin(), "standard input")
    return split_lines(read_bytes(Path(name), pipes=True), name)


def _constraints(lines: list[str] | None) -> tuple[list[str], list[list[str]]]:
    """Prefix and required phrases of each line; a single item of both for typed sentences."""
    count = 1 if lines is None else len(lines)
    prefixes, required = [PREFIX.value] * count, [[*REQUIRE.value] for _ in range(count)]
    for flag in PREFIX_FILE, REQUIRE_FILE:
        if not flag.value:
            continue
        if lines is None:
            raise InputError(f"--{flag.name} is for --input, not for typed sentences")
        values = _lines(flag.value)
        if len(values) != count:
            raise DataError(
                f"--{flag.name}={flag.value} has {len(values)} lines, but the input has {count}: "
                "it needs one line for each, which may be empty"
            )
        if flag is REQUIRE_FILE:
            for phrases, line in zip(required, values, strict=True):
                phrases += [phrase for phrase in line.split("\t") if phrase]
        elif PREFIX.value:
            raise InputError("--prefix and --prefix_file exclude each other: give one of them")
        else:
            prefixes = values
    return prefixes, required


def _print_event(line: int, segment: int, text: str, done: bool) -> None:
    event = {"line": line + 1, "segment": segment, "text": text, "done": done}
    write_line(sys.stderr, json_line(event))


def _print_partial(line: int, segment: int, text: str, done: bool) -> None:
    print(f"\r\x1b[K{printable(text)}", end="", file=sys.stderr, flush=True)


def _format(hypotheses: Sequence[list[Hypothesis]], trained: "LoadedModel") -> list[str]:
    """Format the hypotheses of each sentence as an output line."""
    if FORMAT.value == "text":
        stream = sys.stdout if OUTPUT.value == "-" else None
        return [text_line(best.text, stream) for best, *_ in hypotheses]
    from experiments.json_output import hypotheses_to_json

    with progress_bar("aligning", sum(map(len, hypotheses))) as progress:
        rows = hypotheses_to_json(hypotheses, trained, attention=ATTENTION.value, progress=progress)
    return [*map(json_line, rows)]


def _translate_typed(
    trained: "LoadedModel",
    translator: Translator,
    prefixes: list[str],
    required: list[list[str]],
) -> None:
    """Translate each typed line immediately, until the end of input."""
    print("Type a sentence; Ctrl-D exits.", file=sys.stderr)
    for line in sys.stdin.buffer:
        try:
            text = line.decode().rstrip("\r\n")
            (n_best,) = translator.hypotheses([text], None, prefixes, required)
            if STREAM.value:
                _print_partial(0, 0, "", True)
            print(*_format([n_best], trained), flush=True)
        except UnicodeDecodeError:
            print("heed: error: that line is not valid UTF-8", file=sys.stderr)
        except InputError as error:
            print(f"heed: error: {printable(str(error))}", file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
