"""HTML templates of self-contained pages."""

from importlib.resources import files

from data.printable import json_line

_PLACEHOLDER = "/* data */"  # replaced by the values in a page's application/json script


def read_template(name: str) -> str:
    """Read the template `name`.html."""
    return files("experiments.report.templates").joinpath(f"{name}.html").read_text("utf-8")


def render(name: str, data: dict) -> str:
    """Render the template `name`.html with `data` inserted, safely escaped."""
    before, after = read_template(name).split(_PLACEHOLDER)
    return before + json_in_html(data) + after


def json_in_html(data: object) -> str:
    """Encode JSON for a script element; its text cannot close the element."""
    text = json_line(data)
    for letter in "<>&":  # in JSON these occur only within strings
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
