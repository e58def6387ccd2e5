"""Script detection by Unicode letter names."""

import unicodedata
from functools import cache

_NO_LETTERS = bytes(byte for byte in range(128) if not chr(byte).isalpha())
_NO_SCRIPTS = {"MODIFIER", "FEMININE", "MASCULINE", "MICRO", "MATHEMATICAL", "SUPERSCRIPT"}
_WIDTHS = {"FULLWIDTH", "HALFWIDTH"}


def script(line: str) -> tuple[str, int]:
    """The most common script of a line ("LATIN", "CYRILLIC", "CJK"), and its number of letters.

    A line without letters has the script "".
    """
    latin = len(line.encode("ascii", "ignore").translate(None, _NO_LETTERS))
    if line.isascii():
        return "LATIN" if latin else "", latin
    counts = {"LATIN": latin}
    for character in line:
        if character > "\x7f" and (name := _script(character)):
            counts[name] = counts.get(name, 0) + 1
    most_common = max(counts, key=counts.__getitem__)
    return (most_common, sum(counts.values())) if counts[most_common] else ("", 0)


@cache
def _script(character: str) -> str:
    """The script of a letter, or "" for other characters."""
    if not unicodedata.category(character).startswith("L"):
        return ""
    words = unicodedata.name(character, "").replace("-", " ").split()
    if words and words[0] in _WIDTHS:
        words = words[1:]
    return "" if not words or words[0] in _NO_SCRIPTS else words[0]
