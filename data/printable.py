"""Make text from models and files safe for a line, a terminal or an image.

A vocabulary trained on web text may contain any character: line breaks other than line feeds,
terminal escape sequences, characters that XML cannot represent.
"""

import json
import math
import re
from typing import Any, TextIO

# All that some reader treats as a line break, such as str.splitlines or an editor.
_LINE_BREAKS = re.compile("\r\n|[\n-\r\x1c-\x1e\x85\u2028\u2029]")
_CONTROLS = "\x00-\x1f\x7f-\x9f\u2028\u2029"
_BIDI = "\u202a-\u202e\u2066-\u2069"  # they reorder the text around them
_NOT_TEXT = "\ud800-\udfff\ufffe\uffff"
_UNPRINTABLE = re.compile(f"[{_CONTROLS}{_BIDI}{_NOT_TEXT}]")
_UNDRAWABLE = re.compile(f"[{_CONTROLS}{_NOT_TEXT}]")


def one_line(text: str) -> str:
    """Replace every line break by a space, so that every reader sees one line."""
    return _LINE_BREAKS.sub(" ", text)


def printable(text: str) -> str:
    """Escape text for a terminal, in one line: control characters and others that a terminal
    interprets or cannot show are written as in Python ("\\x1b").
    """
    return _UNPRINTABLE.sub(lambda match: _escape(match[0]), text)


def excerpt(text: str, limit: int = 800) -> str:
    """Shorten text for a message, `printable`: a long one to its beginning and its end."""
    text = printable(text)
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}"


def text_line(text: str, stream: TextIO | None) -> str:
    """Format a line of output: `printable` if the stream is a terminal, else only `one_line`."""
    text = one_line(text)
    return printable(text) if stream is not None and stream.isatty() else text


def json_line(values: object) -> str:
    """Format JSON as one line for every reader, safe for a terminal, and valid as UTF-8.

    NaN and infinities, which JSON lacks, become null.
    """
    text = json.dumps(finite_or_none(values), ensure_ascii=False, allow_nan=False)
    # These characters occur only within strings.
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def finite_or_none(value: Any) -> Any:
    """Replace NaN and infinities in a tree of dicts, lists and tuples by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite_or_none(item) for key, item in value.items()}
    return [*map(finite_or_none, value)] if isinstance(value, list | tuple) else value


def drawable(text: str) -> str:
    """Replace undrawable characters, for SVG and HTML: by control pictures, or by U+FFFD."""
    return _UNDRAWABLE.sub(lambda match: _picture(match[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _picture(character: str) -> str:
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"
