"""Make text from models and files safe for a line, a terminal or an image.

A vocabulary learned from the web holds every character: line breaks that are no line feeds, escape
sequences that a terminal obeys, characters that XML has no form for.
"""

import json
import re
from typing import TextIO

# What some reader takes for a line's end, str.splitlines and editors among them.
_LINE_BREAKS = re.compile("\r\n|[\n-\r\x1c-\x1e\x85\u2028\u2029]")
_CONTROLS = "\x00-\x1f\x7f-\x9f\u2028\u2029"
_BIDI = "\u202a-\u202e\u2066-\u2069"  # they reorder the text around them
_NOT_TEXT = "\ud800-\udfff\ufffe\uffff"
_UNPRINTABLE = re.compile(f"[{_CONTROLS}{_BIDI}{_NOT_TEXT}]")
_UNDRAWABLE = re.compile(f"[{_CONTROLS}{_NOT_TEXT}]")


def one_line(text: str) -> str:
    """The text with every line break as a space: one line to every reader."""
    return _LINE_BREAKS.sub(" ", text)


def printable(text: str) -> str:
    """The text for a terminal, in one line: control characters and what else a terminal obeys or
    cannot show stand as Python writes them ("\\x1b").
    """
    return _UNPRINTABLE.sub(lambda found: _escape(found[0]), text)


def excerpt(text: str, limit: int = 800) -> str:
    """The text, `printable`, for a message: of a long one the beginning and the end."""
    text = printable(text)
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}"


def text_line(text: str, stream: TextIO | None) -> str:
    """A line of output for a stream: `printable` where that is a terminal, else just `one_line`."""
    text = one_line(text)
    return printable(text) if stream is not None and stream.isatty() else text


def json_line(values: object, *, allow_nan: bool = True) -> str:
    """JSON that is one line to every reader, safe for a terminal, and valid as UTF-8.

    Raises ValueError for a number that is not finite without `allow_nan`.
    """
    text = json.dumps(values, ensure_ascii=False, allow_nan=allow_nan)
    # All of these occur within strings alone.
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def drawable(text: str) -> str:
    """The text for SVG, HTML and fonts: a control character as its picture, else U+FFFD."""
    return _UNDRAWABLE.sub(lambda found: _picture(found[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _picture(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"
