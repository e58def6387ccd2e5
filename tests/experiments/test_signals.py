"""Ctrl-C ends a command with one line at any time; as a library, Heed does not handle it.

The programs here do not import JAX, so that each takes a few hundredths of a second.
"""

import os
import signal
import subprocess
import sys

import pytest

from experiments import signals
from experiments.preemption import catch_signals, sigint_check
from tests.experiments.commands import ROOT

BEGIN = """
import gc, os, sys, threading, time
from signal import *
from experiments import signals

signals.install_sigint_handler()

def interrupt(*_):
    os.kill(os.getpid(), SIGINT)
"""
# A KeyboardInterrupt would be lost in the first three, become an ImportError in the fourth, and
# come too late in the last, where the main thread is in a library call that no signal interrupts.
MOMENTS = {
    "destructor": "class Dying:\n    __del__ = interrupt\nDying()\n",
    "callback": "gc.callbacks.append(interrupt)\ngc.collect()\n",
    "hook": "sys.unraisablehook = print\nimport weakref\nx = set()\nclass Y: pass\n"
    "y = Y()\nr = weakref.ref(y, interrupt)\ndel y\n",
    "import": "class Finder:\n    find_spec = interrupt\nsys.meta_path.insert(0, Finder())\n"
    "try:\n    import nothing\nexcept ImportError:\n    pass\n",
    "caught": "try:\n    interrupt()\n    time.sleep(9)\nexcept BaseException:\n    pass\n",
    "thread": "threading.Thread(target=interrupt).start()\ntime.sleep(9)\n",
    "library": "import ctypes\npthread_sigmask(SIG_BLOCK, {SIGINT})\n"
    "threading.Timer(0.1, interrupt).start()\nctypes.CDLL(None).sleep(60)\n",
}


def run(program, folder=ROOT, ignored=False, **environment):
    """Runs a program that interrupts itself; returns its status, stdout and stderr."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    out, err = process.communicate(timeout=50)
    return process.returncode, out, err


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_is_never_lost(moment):
    result = run(f"{BEGIN}{MOMENTS[moment]}print('continued')")
    assert result == (130, "", "heed: interrupted\n")


def test_ctrl_c_during_startup_is_handled_later():
    """With this argv, Python runs experiments/__init__.py before all other code of a command."""
    program = """
import os, sys, threading
from signal import SIGINT
sys.argv = ["-m"]
class Finder:
    def find_spec(name, *_):
        if name == "experiments.signals":
            os.kill(os.getpid(), SIGINT)
sys.meta_path.insert(0, Finder)
import experiments
print("continued")
"""
    assert run(program) == (130, "", "heed: interrupted\n")


def test_an_ignored_sigint_stays_ignored():
    """As in background jobs of a script."""
    assert run(f"{BEGIN}interrupt()\nprint('done')", ignored=True) == (0, "done\n", "")


def test_unfinished_files_are_removed(tmp_path):
    """A file, a new folder, and an existing folder with other files."""
    program = f"""{BEGIN}
from pathlib import Path
from data.atomic_write import remove_unfinished, write_atomic
from experiments.temporary_folders import remove_on_error, temporary_folder
real = Path.write_bytes

def write_bytes(path, content):
    real(path, content[:3])
    interrupt()

Path.write_bytes = write_bytes
there = Path(sys.orig_argv[2].partition("#")[2].strip())
with (
    signals.cleanup(remove_unfinished), remove_on_error(there), temporary_folder() as other,
    remove_on_error(there / "new/run"),
):
    (other / "x").mkdir()
    (there / "new/run/part").mkdir()
    write_atomic(there / "kept", b"new content")
#"""
    (tmp_path / "kept").write_text("old")
    (tmp_path / "temporary").mkdir()
    result = run(program + str(tmp_path), TMPDIR=str(tmp_path / "temporary"))
    assert result == (130, "", "heed: interrupted\n")
    assert sorted(os.listdir(tmp_path)) == ["kept", "temporary"]
    assert (tmp_path / "kept").read_text() == "old"
    assert os.listdir(tmp_path / "temporary") == []


HANDLER = """
from experiments import signals
heard = []
with signals.handling(SIGINT, lambda: heard.append(1)):
    interrupt()
    print(len(heard), flush=True)
    INSTEAD
interrupt()
"""


def test_a_handler_runs_instead_and_a_second_ctrl_c_exits():
    """Also while the main thread is in a library call."""
    expected = (130, "1\n", "heed: interrupted\n")
    assert run(BEGIN + HANDLER.replace("INSTEAD", "")) == expected
    assert (
        run(BEGIN + HANDLER.replace("INSTEAD", MOMENTS["library"].replace("\n", ";"))) == expected
    )


def test_a_library_does_not_handle_ctrl_c():
    """The handlers of pytest or a notebook stay installed during training."""
    before = signal.getsignal(signal.SIGINT)
    assert signal.SIGINT not in signals._reactions
    with catch_signals(9.0), sigint_check():
        assert signal.getsignal(signal.SIGINT) is before
        assert signal.getsignal(signal.SIGTERM) is signals._handle
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_subprocesses_started_with_sigint_blocked_get_it_later():
    child = "import time; time.sleep(0.2)\nfrom experiments import signals\n"
    child += "signals.install_sigint_handler()"
    program = f"""{BEGIN}
import subprocess
with signals.sigint_blocked():
    child = subprocess.Popen([sys.executable, "-c", {child!r}], stderr=subprocess.PIPE)
child.send_signal(SIGINT)
print(child.communicate()[1], child.returncode)
"""
    assert run(program) == (0, "b'heed: interrupted\\n' 130\n", "")
