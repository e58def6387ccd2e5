"""Ctrl-C ends a command in one line, wherever it comes; a library leaves it alone.

What is tried needs no JAX, so that each program takes a few hundredths of a second.
"""

import os
import signal
import subprocess
import sys

import pytest

from experiments import signals
from experiments.preemption import catch_signals, flagged
from tests.experiments.commands import ROOT

BEGIN = """
import gc, os, sys, threading, time
from signal import *
from experiments import signals

signals.begin()

def interrupt(*_):
    os.kill(os.getpid(), SIGINT)
"""
# An exception is lost in the first three, becomes an ImportError in the fourth, and comes too late
# in the last: there the main thread is inside of a library that no signal wakes.
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
    """What a program, interrupted by itself, ends with: status, stdout, stderr."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        it = subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    out, err = it.communicate(timeout=50)
    return it.returncode, out, err


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_is_never_lost(moment):
    found = run(f"{BEGIN}{MOMENTS[moment]}print('continued')")
    assert found == (130, "", "heed: interrupted\n")


def test_it_waits_until_it_is_handled():
    """Python runs experiments/__init__.py with this argv, before all else of a command's code."""
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


def test_where_it_is_ignored_it_stays_so():
    """As in the background jobs of a script."""
    assert run(f"{BEGIN}interrupt()\nprint('done')", ignored=True) == (0, "done\n", "")


def test_what_is_half_written_is_removed(tmp_path):
    """A file, a folder that was not there, and one with something of others in it."""
    program = f"""{BEGIN}
from pathlib import Path
from data.atomic_write import remove_unfinished, write_atomic
from experiments.temporary_folders import removed_unless_done, temporary_folder
real = Path.write_bytes

def write_bytes(path, content):
    real(path, content[:3])
    interrupt()

Path.write_bytes = write_bytes
there = Path(sys.orig_argv[2].partition("#")[2].strip())
with (
    signals.cleanup(remove_unfinished), removed_unless_done(there), temporary_folder() as other,
    removed_unless_done(there / "new/run"),
):
    (other / "x").mkdir()
    (there / "new/run/part").mkdir()
    write_atomic(there / "kept", b"new content")
#"""
    (tmp_path / "kept").write_text("old")
    (tmp_path / "temporary").mkdir()
    found = run(program + str(tmp_path), TMPDIR=str(tmp_path / "temporary"))
    assert found == (130, "", "heed: interrupted\n")
    assert sorted(os.listdir(tmp_path)) == ["kept", "temporary"]
    assert (tmp_path / "kept").read_text() == "old"
    assert os.listdir(tmp_path / "temporary") == []


FLAG = """
from experiments import signals
heard = []
with signals.handling(SIGINT, lambda: heard.append(1)):
    interrupt()
    print(len(heard), flush=True)
    INSTEAD
interrupt()
"""


def test_a_flag_is_set_instead_and_a_second_one_ends_it():
    """Also while the main thread hears nothing."""
    ended = (130, "1\n", "heed: interrupted\n")
    assert run(BEGIN + FLAG.replace("INSTEAD", "")) == ended
    assert run(BEGIN + FLAG.replace("INSTEAD", MOMENTS["library"].replace("\n", ";"))) == ended


def test_a_library_leaves_ctrl_c_alone():
    """What pytest does on it, or a notebook, it does also while a training runs."""
    before = signal.getsignal(signal.SIGINT)
    assert signal.SIGINT not in signals._reactions
    with catch_signals(9.0), flagged():
        assert signal.getsignal(signal.SIGINT) is before
        assert signal.getsignal(signal.SIGTERM) is signals._handle
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_processes_begun_while_it_is_held_back_hear_of_it_once_they_can():
    child = "import time; time.sleep(0.2); from experiments import signals; signals.begin()"
    program = f"""{BEGIN}
import subprocess
with signals.held_back():
    child = subprocess.Popen([sys.executable, "-c", {child!r}], stderr=subprocess.PIPE)
child.send_signal(SIGINT)
print(child.communicate()[1], child.returncode)
"""
    assert run(program) == (0, "b'heed: interrupted\\n' 130\n", "")
