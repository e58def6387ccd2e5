"""HTML templates that need no network."""

from importlib.resources import files

from data.printable import json_line

_PLACE = "/* data */"  # replaced by the values in a page's application/json script


def page(name: str) -> str:
    """The text of the page `name`.html."""
    return files("experiments.report.templates").joinpath(f"{name}.html").read_text("utf-8")


def filled(name: str, data: dict) -> str:
    """The page `name`.html with `data` inserted, safely escaped."""
    before, after = page(name).split(_PLACE)
    return before + json_in_html(data) + after


def json_in_html(data: object) -> str:
    """JSON that is safe within a script element: nothing in it can close the element."""
    text = json_line(data, allow_nan=False)
    for letter in "<>&":  # in JSON these occur only within strings
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
