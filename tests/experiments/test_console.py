"""Bars are for terminals."""

import errno
import io
import os
import pty
import subprocess
import sys

import pytest

from data.errors import DataError
from experiments.cli import fail
from experiments.console import log, progress_bar
from tests.experiments.commands import ROOT
from train.progress import Progress

PROGRAM = """
from experiments.console import progress_bar
with progress_bar("learning", 2) as progress:
    progress(2)
"""


def test_messages_cannot_move_a_terminal(capsys):
    log("a file named \x1b[2J\x07")
    Progress().log("a word \x1b[2J")
    with pytest.raises(SystemExit):
        fail(DataError("line 3: '\x1b]0;title\x07' \u202e is no word\n"))
    assert capsys.readouterr().err.splitlines() == [
        "a file named \\x1b[2J\\x07",
        "a word \\x1b[2J",
        "heed: error: line 3: '\\x1b]0;title\\x07' \\u202e is no word",
    ]
    with progress_bar("a folder named [/red]\x1b", 1) as progress:
        progress(1)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_bar_is_drawn_on_a_terminal_alone(terminal):
    """Also where colours are forced, as many machines that run tests do."""
    told = dict(os.environ, FORCE_COLOR="1", TERM="xterm", JAX_PLATFORMS="cpu")
    reader, writer = pty.openpty() if terminal else os.pipe()
    try:
        subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=ROOT, env=told, stderr=writer, check=True
        )
        os.write(writer, b".")  # so that there is something to read
        found = os.read(reader, 1 << 16).decode()
    finally:
        os.close(reader)
        os.close(writer)
    assert ("learning" in found) == terminal


def test_a_note_that_cannot_be_written_ends_nothing(monkeypatch):
    """As where standard error is a file on a full disk."""

    def fail(_text):
        raise OSError(errno.ENOSPC, "No space left on device")

    full = io.StringIO()
    full.write = fail
    monkeypatch.setattr(sys, "stderr", full)
    log("bleu 30")
