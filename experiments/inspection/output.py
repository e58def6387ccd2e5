"""Output of an inspection as text or JSON lines."""

import sys
from collections.abc import Callable
from itertools import groupby

from data.pairs import Corpus
from data.printable import printable
from experiments.console import print_json
from experiments.inspection.section import SIDES, Section, place, where

_WIDTH = 70  # characters of a line that are shown


def make_reporter(
    form: str, max_warnings: int | None, splits: dict[str, Corpus]
) -> Callable[[Section], int]:
    """A function that tells a section, and returns how many warnings it has.

    `form` is "text", which prints `max_warnings` warnings of each kind (5 by default), or "jsonl",
    which tells all by default; with 0 both tell all.
    """

    def chosen(section: Section, default: int):
        most = default if max_warnings is None else max_warnings
        key = lambda warned: (warned.kind, warned.split)  # noqa: E731
        for _, alike in groupby(sorted(section.warnings, key=key), key=key):
            group = list(alike)
            yield group[: most or None], len(group)

    def shown(split: str, side: int, index: int) -> str:
        line = splits[split][index][side]
        line = printable(line)
        return line if len(line) <= _WIDTH else line[:_WIDTH] + " .."

    def text(section: Section) -> int:
        print(f"\n{section.name.capitalize()}")
        for line in section.lines:
            print(f"  {printable(line)}")
        for group, count in chosen(section, 5):
            for w in group:
                line = shown(w.split, w.side, w.index)
                tail = f": {line}" * bool(line.strip())
                told = f"{where(splits, w.split, w.side, w.index)}: {w.text}"
                print(f"  warning: {printable(told)}{tail}")
            if count > len(group):
                more = f"{count - len(group):,} more in {w.split}"
                print(f"  .. and {more}: --max_warnings=0 prints all")
        sys.stdout.flush()  # what is told on stderr meanwhile comes after it
        return len(section.warnings)

    def json_lines(section: Section) -> int:
        print_json({"section": section.name, **section.values})
        for group, _ in chosen(section, 0):
            for w in group:
                file, line = place(splits, w.split, w.side, w.index)
                at = {"file": file, "line": line, "split": w.split, "side": SIDES[w.side]}
                print_json({"warning": w.kind, **at, "text": w.text})
        return len(section.warnings)

    return text if form == "text" else json_lines
