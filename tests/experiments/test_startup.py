"""Commands begin well wherever they are started: locales, closed streams, other projects' files.

A command that needs nothing but what all of them begin with stands for all.
"""

import os
import shutil
import subprocess
import sys

import pytest

from tests.experiments.commands import ROOT

COMMAND = """
import sys
print(sys.argv[1] if sys.argv[1:] else "ü")
print("said ü", file=sys.stderr)
print(sys.getfilesystemencoding(), sys.stdin and sys.stdin.read())
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with Heed's packages, empty but for the command's own."""
    root = tmp_path_factory.mktemp("installed")
    for name in "model", "data", "train", "decode", "interop", "serve", "experiments":
        (root / name).mkdir()
        (root / name / "__init__.py").touch()
    for name in "__init__", "startup", "signals":
        shutil.copy(ROOT / "experiments" / f"{name}.py", root / "experiments")
    (root / "experiments" / "hello.py").write_text(COMMAND, "utf-8")
    return root


def hello(installed, *args, shell="", folder=None, **environment):
    """Status, stdout and stderr of `python -m experiments.hello`, with these redirections."""
    command = ["bash", "-c", f'"$@" {shell}', "_", sys.executable, "-m", "experiments.hello", *args]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, cwd=folder or installed,
        env=dict(PATH=os.environ["PATH"], PYTHONPATH=str(installed)) | environment,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("environment", [
    dict(LC_ALL="C"), dict(LC_ALL="C", PYTHONUTF8="0"), dict(PYTHONIOENCODING="ascii:strict"),
    dict(LC_ALL="POSIX", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="latin-1"),
], ids=str)  # fmt: skip
def test_text_and_file_names_are_utf8_in_every_locale(installed, environment):
    expected = 0, "Köln\nutf-8 \n".encode(), "said ü\n".encode()
    assert hello(installed, "Köln", **environment) == expected
    lone = os.fsdecode(b"\xf6")  # a name that is no UTF-8 is told as JSON can hold it
    assert hello(installed, lone, **environment)[:2] == (0, b"\\udcf6\nutf-8 \n")


def test_a_closed_or_full_stream_is_a_line_or_nothing(installed):
    closed = b"heed: error: standard output is closed: redirect it to a file or to /dev/null\n"
    assert hello(installed, shell=">&-") == (1, b"", closed)
    assert hello(installed, shell="<&-") == (0, "ü\nutf-8 None\n".encode(), "said ü\n".encode())
    for lost in "2>&-", "2>/dev/full":
        assert hello(installed, shell=lost) == (0, "ü\nutf-8 \n".encode(), b"")
    assert hello(installed, shell="<&- >&- 2>&-") == (1, b"", b"")


@pytest.mark.parametrize("other", ["train.py", "data/__init__.py"])
def test_a_file_that_hides_a_package_is_named_and_not_run(installed, tmp_path, other):
    file = tmp_path / other
    file.parent.mkdir(exist_ok=True)
    file.write_text("print('run')")
    status, out, err = hello(installed, folder=tmp_path)
    assert (status, out) == (1, b"")
    name = other.partition("/")[0].removesuffix(".py")
    assert err.decode().startswith(f"heed: error: {file} hides Heed's package '{name}': run")
    assert err.count(b"\n") == 1
    file.unlink()
    assert hello(installed, folder=tmp_path)[0] == 0  # a folder that is no package hides none


def test_a_folder_hides_no_package_of_an_editable_installation(installed, tmp_path):
    """There an import hook finds Heed's, after Python has looked into the working folder."""
    (tmp_path / "data").mkdir()
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(f"""
import importlib.machinery, importlib.util, sys

class Finder:
    def find_spec(name, path=None, target=None):
        folder = {str(installed)!r} + "/" + name
        if name in ("model", "data", "train", "decode", "experiments"):
            return importlib.util.spec_from_file_location(name, folder + "/__init__.py")

first = sys.meta_path.index(importlib.machinery.PathFinder)
sys.meta_path.insert(first + 1, Finder)
""")
    (installed / "experiments" / "where.py").write_text("import data; print(data.__file__)")
    done = subprocess.run(
        [sys.executable, "-m", "experiments.where"], capture_output=True, text=True, cwd=tmp_path,
        env=dict(PATH=os.environ["PATH"], PYTHONPATH=str(tmp_path / "hook")),
    )  # fmt: skip
    assert (done.stderr, done.stdout) == ("", f"{installed}/data/__init__.py\n")


def test_importing_heed_begins_nothing():
    # Compared, not named: a shell's background job has SIGINT ignored.
    program = """if True:
        import signal, threading
        before = signal.getsignal(2), threading.active_count()
        import experiments
        print(before == (signal.getsignal(2), threading.active_count()))
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.stdout == "True\n", done.stderr
