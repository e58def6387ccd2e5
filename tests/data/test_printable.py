"""Sanitized output: single lines, no control characters in terminals, valid XML."""

import io
import json
import sys
import xml.etree.ElementTree as ElementTree

from data.printable import drawable, json_line, one_line, printable, text_line

CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0))]
BREAKS = [c for c in map(chr, range(sys.maxunicode + 1)) if len(f"a{c}b".splitlines()) > 1]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_line_breaks_become_spaces():
    assert len(BREAKS) == 10
    for character in BREAKS:
        assert one_line(f"a{character}b") == "a b"
    assert one_line("a\r\nb\tc\x1b") == "a b\tc\x1b"
    text = "".join(f"{character}x" for character in BREAKS)
    for stream in None, io.StringIO(), Terminal():
        assert text_line(text, stream) == " x" * len(BREAKS)


def test_terminals_get_no_control_characters():
    text = "".join(CONTROLS) + "ä\u202e\u2066\u2028\ud800\uffff"
    output = printable(text)
    assert output.isprintable() and output.encode() and "ä" in output
    assert printable("\x1b[31mred\x07\n") == "\\x1b[31mred\\x07\\x0a"
    assert (
        text_line("a\x1b", Terminal()) == "a\\x1b" and text_line("a\x1b", io.StringIO()) == "a\x1b"
    )
    assert printable("Größe 東京 \u200f ‍") == "Größe 東京 \u200f ‍"


def test_json_lines_are_printable_and_round_trip():
    values = {"text": "".join(CONTROLS) + "".join(BREAKS) + "ä\u202e\ud800", "n": [1.5, None]}
    line = json_line(values)
    assert line.isprintable() and len(line.splitlines()) == 1 and line.encode() and "ä" in line
    assert json.loads(line) == values


def test_numbers_that_json_lacks_become_null():
    nan, inf = float("nan"), float("inf")
    line = json_line({"score": inf, "scores": [1.5, -inf, (nan, True, 2)], "n": {"x": nan}})
    assert line == '{"score": null, "scores": [1.5, null, [null, true, 2]], "n": {"x": null}}'


def test_drawable_text_is_valid_xml():
    text = "".join(CONTROLS) + "\ud800\udfff\ufffe\uffff\u2028ä$"
    output = drawable(text)
    assert ElementTree.fromstring(f"<p>{output}</p>").text == output and len(output) == len(text)
    assert drawable("\x00\x1b\x7f\x9b\ud800") == "\u2400\u241b\u2421\ufffd\ufffd"
