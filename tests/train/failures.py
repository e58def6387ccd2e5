"""Checks of errors: one line, raised once."""


def one_line(error, capfd):
    """The error's message, which must be one line, with nothing printed."""
    assert "\n" not in str(error.value)
    out, err = capfd.readouterr()
    assert out + err == ""
    return str(error.value)
