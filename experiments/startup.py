"""Start-up of commands before slow imports: standard streams, encoding, shadowed packages.

It handles a closed standard stream, an encoding other than UTF-8, and files of another project that
shadow one of Heed's packages. `import experiments` as a library does none of this.
"""

import io
import os
import sys
from importlib.util import find_spec

from experiments import signals

STDOUT = "standard output"  # the file's name in errors
_PACKAGES = ("model", "data", "train", "decode", "interop", "serve")


def set_up_command() -> None:
    """Set up this process as a command, or exit with status 1 and one line on stderr."""
    closed = [number for number in range(3) if _open_if_closed(number)]
    signals.install_sigint_handler()
    _use_utf8()
    if 1 in closed:
        _fail("standard output is closed: redirect it to a file or to /dev/null")
    _check_packages()


def _open_if_closed(number: int) -> bool:
    """Open /dev/null for a closed standard stream, whose number a file would get; return whether.

    sys.stdin stays None, which its readers report. Output to a closed stderr is lost, as intended.
    """
    try:
        os.fstat(number)
        return False
    except OSError:
        # All lower numbers are in use, so it gets this number.
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
        return True


def _use_utf8() -> None:
    """Use UTF-8 for text, file names and flags, whatever the locale.

    The encoding of file names is fixed at the start of Python, so Python restarts if it is wrong.
    """
    if sys.getfilesystemencoding() != "utf-8" and not sys.flags.utf8_mode:
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
    sys.stderr = _text_stream(_Stderr(2, "w", closefd=False), True)
    if sys.stdout is not None:
        sys.stdout = _text_stream(_Stdout(1, "w", closefd=False), sys.stdout.isatty())


def _text_stream(file: io.FileIO, line_buffering: bool) -> io.TextIOWrapper:
    buffer = io.BufferedWriter(file)
    return io.TextIOWrapper(buffer, "utf-8", "backslashreplace", line_buffering=line_buffering)


class _Stdout(io.FileIO):
    """Standard output, whose errors name it."""

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError as error:
            error.filename = STDOUT
            raise


class _Stderr(io.FileIO):
    """Standard error that ignores errors: a log on a full disk is no reason to stop."""

    def write(self, data) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def _check_packages() -> None:
    """Exit if Python would import, for example, another project's train instead of Heed's."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    for name in _PACKAGES:
        spec = find_spec(name)  # executes no module
        origin = spec.origin if spec else None
        if origin is None:  # a folder without __init__.py shadows an editable install
            sys.path.insert(0, root)
        elif os.path.realpath(os.path.dirname(origin)) != os.path.realpath(f"{root}/{name}"):
            _fail(
                f"{origin} hides Heed's package {name!r}: run the command in another folder, "
                "or rename the file"
            )


def _fail(message: str) -> None:
    print(f"heed: error: {message}", file=sys.stderr, flush=True)
    os._exit(1)
