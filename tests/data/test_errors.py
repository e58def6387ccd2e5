"""DataError: one printable line."""

import pytest

from data.errors import DataError


@pytest.mark.parametrize("character", "\n\r\x0b\x1b\x85\u2028\u2029\u202e\ud800")
def test_an_error_is_one_printable_line(character):
    message = str(DataError(f"a{character}b is missing"))
    assert len(message.splitlines()) == 1 and message.isprintable()
    assert message.startswith("a\\") and message.endswith("b is missing")
