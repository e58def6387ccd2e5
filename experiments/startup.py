"""Start-up of commands, before slow imports: streams, encoding, shadowed packages.

It closes gaps that a shell, a container or another project's files leave: a closed standard stream,
an encoding that is not UTF-8, a file that hides one of Heed's packages. `import experiments` as a
library does none of this.
"""

import io
import os
import sys
from importlib.util import find_spec

from experiments import signals

STDOUT = "standard output"  # the file's name in errors
_PACKAGES = ("model", "data", "train", "decode", "interop", "serve")


def begin() -> None:
    """Make this process a command. Ends it with one line and status 1 where it cannot be one."""
    closed = [number for number in range(3) if _fill(number)]
    signals.begin()
    _use_utf8()
    if 1 in closed:
        _fail("standard output is closed: redirect it to a file or to /dev/null")
    _check_packages()


def _fill(number: int) -> bool:
    """Whether a standard stream was closed; it is /dev/null then, or a file would get its number.

    sys.stdin stays None: what reads it says so. What goes to stderr is lost, as its user wants.
    """
    try:
        os.fstat(number)
        return False
    except OSError:
        # As all lower numbers are taken, this is the number that it gets.
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        return True


def _use_utf8() -> None:
    """Text, file names and flags are UTF-8, whatever the locale says.

    How file names are encoded is settled when Python starts, so it starts again where it is wrong.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    sys.stderr = _text(_Stderr(2, "w", closefd=False), True)
    if sys.stdout is not None:
        sys.stdout = _text(_Stdout(1, "w", closefd=False), sys.stdout.isatty())


def _text(raw: io.FileIO, by_line: bool) -> io.TextIOWrapper:
    file = io.BufferedWriter(raw)
    return io.TextIOWrapper(file, "utf-8", "backslashreplace", line_buffering=by_line)


class _Stdout(io.FileIO):
    """Standard output, whose errors name it."""

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            raise


class _Stderr(io.FileIO):
    """Standard error: a log that nobody can take, on a full disk, say, is no reason to end."""

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _check_packages() -> None:
    """End where Python would import another project's train, say, for Heed's."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for name in _PACKAGES:
        spec = find_spec(name)  # which runs nothing
        there = spec.origin if spec else None
        if there is None:  # a folder that is no package: it hides one that an import hook finds
            sys.path.insert(0, root)
        elif os.path.realpath(os.path.dirname(there)) != os.path.realpath(f"{root}/{name}"):
            _fail(
                f"{there} hides Heed's package {name!r}: run the command in another folder, "
                "or rename the file"
            )


def _fail(message: str) -> None:
    print(f"heed: error: {message}", file=sys.stderr, flush=True)
    os._exit(1)
