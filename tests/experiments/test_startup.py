"""Startup of commands: locales, closed streams, files that shadow packages.

One command, which only runs the startup code of all commands, represents them all.
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
    """A folder with Heed's packages, which are empty except for the command's modules."""
    root = tmp_path_factory.mktemp("installed")
    for name in "model", "data", "train", "decode", "interop", "serve", "experiments":
        (root / name).mkdir()
        (root / name / "__init__.py").touch()
    for name in "__init__", "startup", "signals":
        shutil.copy(ROOT / "experiments" / f"{name}.py", root / "experiments")
    (root / "experiments" / "hello.py").write_text(COMMAND, "utf-8")
    return root


def hello(installed, *args, shell="", folder=None, **environment):
    """Runs `python -m experiments.hello` with shell redirections; status, stdout and stderr."""
    command = ["bash", "-c", f'"$@" {shell}', "_", sys.executable, "-m", "experiments.hello", *args]
    process = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, cwd=folder or installed,
        env=dict(PATH=os.environ["PATH"], PYTHONPATH=str(installed)) | environment,
    )  # fmt: skip
    return process.returncode, process.stdout, process.stderr


@pytest.mark.parametrize("environment", [
    dict(LC_ALL="C"), dict(LC_ALL="C", PYTHONUTF8="0"), dict(PYTHONIOENCODING="ascii:strict"),
    dict(LC_ALL="POSIX", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="latin-1"),
], ids=str)  # fmt: skip
def test_text_and_file_names_are_utf8_in_every_locale(installed, environment):
    expected = 0, "Köln\nutf-8 \n".encode(), "said ü\n".encode()
    assert hello(installed, "Köln", **environment) == expected
    invalid_name = os.fsdecode(b"\xf6")  # a name that is not UTF-8 is escaped
    assert hello(installed, invalid_name, **environment)[:2] == (0, b"\\udcf6\nutf-8 \n")


def test_closed_and_full_streams_print_at_most_one_line(installed):
    closed = b"heed: error: standard output is closed: redirect it to a file or to /dev/null\n"
    assert hello(installed, shell=">&-") == (1, b"", closed)
    assert hello(installed, shell="<&-") == (0, "ü\nutf-8 None\n".encode(), "said ü\n".encode())
    for redirection in "2>&-", "2>/dev/full":
        assert hello(installed, shell=redirection) == (0, "ü\nutf-8 \n".encode(), b"")
    assert hello(installed, shell="<&- >&- 2>&-") == (1, b"", b"")


@pytest.mark.parametrize("path", ["train.py", "data/__init__.py"])
def test_a_file_that_shadows_a_package_is_named_and_not_run(installed, tmp_path, path):
    file = tmp_path / path
    file.parent.mkdir(exist_ok=True)
    file.write_text("print('run')")
    status, out, err = hello(installed, folder=tmp_path)
    assert (status, out) == (1, b"")
    name = path.partition("/")[0].removesuffix(".py")
    assert err.decode().startswith(f"heed: error: {file} hides Heed's package '{name}': run")
    assert err.count(b"\n") == 1
    file.unlink()
    assert hello(installed, folder=tmp_path)[0] == 0  # a folder alone shadows no package


def test_a_folder_shadows_no_package_of_an_editable_installation(installed, tmp_path):
    """An import hook finds Heed's packages after Python has searched the working directory."""
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
    process = subprocess.run(
        [sys.executable, "-m", "experiments.where"], capture_output=True, text=True, cwd=tmp_path,
        env=dict(PATH=os.environ["PATH"], PYTHONPATH=str(tmp_path / "hook")),
    )  # fmt: skip
    assert (process.stderr, process.stdout) == ("", f"{installed}/data/__init__.py\n")


def test_importing_heed_changes_no_handler_and_starts_no_thread():
    # Compared with itself: SIGINT is ignored in a shell's background job.
    program = """if True:
        import signal, threading
        before = signal.getsignal(2), threading.active_count()
        import experiments
        print(before == (signal.getsignal(2), threading.active_count()))
    """
    process = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout == "True\n", process.stderr
