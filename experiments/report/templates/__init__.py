"""HTML templates that need no network."""

from importlib.resources import files

from data.printable import json_line

_PLACE = "/* data */"  # where a page's script of type application/json has its values


def page(name: str) -> str:
    """The text of the page `name`.html."""
    return files("experiments.report.templates").joinpath(f"{name}.html").read_text("utf-8")


def filled(name: str, data: dict) -> str:
    """The page `name`.html with `data` in it, whatever text these hold."""
    before, after = page(name).split(_PLACE)
    return before + json_in_html(data) + after


def json_in_html(data: object) -> str:
    """JSON that means the same within a script element: nothing in it can end one."""
    text = json_line(data, allow_nan=False)
    for letter in "<>&":  # in JSON these occur within strings alone
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text
