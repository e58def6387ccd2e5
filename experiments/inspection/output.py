"""Output of an inspection as text or JSON lines."""

import sys
from collections.abc import Callable
from itertools import groupby

from data.pairs import Corpus
from data.printable import printable
from experiments.console import print_json
from experiments.inspection.section import SIDES, Section, format_location, locate

_WIDTH = 70  # maximum characters of a printed line


def make_reporter(
    form: str, max_warnings: int | None, splits: dict[str, Corpus]
) -> Callable[[Section], int]:
    """Return a function that prints a section and returns its number of warnings.

    `form` is "text", which prints `max_warnings` warnings of each kind (5 by default), or "jsonl",
    which prints all by default; 0 means all in both.
    """

    def select_warnings(section: Section, default: int):
        limit = default if max_warnings is None else max_warnings
        kind_and_split = lambda warning: (warning.kind, warning.split)  # noqa: E731
        ordered = sorted(section.warnings, key=kind_and_split)
        for _, warnings in groupby(ordered, key=kind_and_split):
            group = list(warnings)
            yield group[: limit or None], len(group)

    def shorten(split: str, side: int, index: int) -> str:
        line = splits[split][index][side]
        line = printable(line)
        return line if len(line) <= _WIDTH else line[:_WIDTH] + " .."

    def print_text(section: Section) -> int:
        print(f"\n{section.name.capitalize()}")
        for line in section.lines:
            print(f"  {printable(line)}")
        for group, count in select_warnings(section, 5):
            for warning in group:
                line = shorten(warning.split, warning.side, warning.index)
                tail = f": {line}" if line.strip() else ""
                location = format_location(splits, warning.split, warning.side, warning.index)
                print(f"  warning: {printable(f'{location}: {warning.text}')}{tail}")
            if count > len(group):
                hidden = f"{count - len(group):,} more in {warning.split}"
                print(f"  .. and {hidden}: --max_warnings=0 prints all")
        sys.stdout.flush()  # keeps the order with stderr
        return len(section.warnings)

    def print_json_lines(section: Section) -> int:
        print_json({"section": section.name, **section.values})
        for group, _ in select_warnings(section, 0):
            for warning in group:
                file, line = locate(splits, warning.split, warning.side, warning.index)
                location = {
                    "file": file,
                    "line": line,
                    "split": warning.split,
                    "side": SIDES[warning.side],
                }
                print_json({"warning": warning.kind, **location, "text": warning.text})
        return len(section.warnings)

    return print_text if form == "text" else print_json_lines
