"""Console output: progress bars, control characters, unwritable stderr."""

import errno
import io
import os
import pty
import subprocess
import sys

import pytest

from data.errors import DataError
from experiments.cli import fail
from experiments.console import log, print_json, progress_bar, write_line
from tests.experiments.commands import ROOT
from train.progress import Progress

PROGRAM = """
from experiments.console import progress_bar
with progress_bar("learning", 2) as progress:
    progress(2)
"""


def test_messages_cannot_control_a_terminal(capsys):
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
def test_a_progress_bar_is_drawn_only_in_a_terminal(terminal):
    """Even with FORCE_COLOR, as CI machines often set it."""
    env = dict(os.environ, FORCE_COLOR="1", TERM="xterm", JAX_PLATFORMS="cpu")
    reader, writer = pty.openpty() if terminal else os.pipe()
    try:
        subprocess.run(
            [sys.executable, "-c", PROGRAM], cwd=ROOT, env=env, stderr=writer, check=True
        )
        os.write(writer, b".")  # so that read does not block
        output = os.read(reader, 1 << 16).decode()
    finally:
        os.close(reader)
        os.close(writer)
    assert ("learning" in output) == terminal


def test_an_unwritable_stderr_is_ignored(monkeypatch):
    """As if stderr were a file on a full disk."""

    texts = []

    def fail(text):
        texts.append(text)
        raise OSError(errno.ENOSPC, "No space left on device")

    stream = io.StringIO()
    stream.write = fail
    monkeypatch.setattr(sys, "stderr", stream)
    log("bleu 30")
    log("bleu 31")
    assert texts == ["bleu 30\n", "bleu 31\n"]


class Writes(list):
    """A stream that records each call of `write`."""

    write = list.append

    def flush(self):
        pass


def test_every_line_is_one_write(monkeypatch):
    errors, output = Writes(), Writes()
    monkeypatch.setattr(sys, "stderr", errors)
    monkeypatch.setattr(sys, "stdout", output)
    log("a message")
    write_line(sys.stderr, "an event")
    print_json({"step": 1})
    assert output == ['{"step": 1}\n']
    assert errors == ["a message\n", "an event\n"]
