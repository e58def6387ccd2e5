"""Outputs: checked before the work, and cleaned up after errors and Ctrl-C."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from data.atomic_write import is_replaced
from data.errors import DataError
from experiments.signals import cleanup


def check_output_file(output: Path) -> None:
    """Raise DataError if `write_output` cannot write the file that --output names."""
    target = Path(os.path.realpath(output)) if is_replaced(output) else output
    if not target.parent.is_dir():
        folder = (target if output.is_symlink() else output).parent
        raise DataError(f"--output={output}: there is no folder {folder}")
    needed = [target] * target.exists() + [target.parent] * is_replaced(output)
    if target.is_dir() or not all(os.access(path, os.W_OK) for path in needed):
        raise DataError(f"--output={output} cannot be written to")


@contextmanager
def remove_on_error(folder: Path) -> Iterator[None]:
    """Context that creates `folder`; an error or Ctrl-C removes all new files in it."""
    created = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    existing = set(folder.iterdir()) if folder.exists() else set()

    def restore() -> None:
        for path in set(folder.iterdir()) - existing if folder.exists() else ():
            _remove(path)
        for parent in created:
            with suppress(OSError):  # not empty: another process wrote files there
                parent.rmdir()

    with cleanup(restore):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            yield
        except BaseException:
            restore()
            raise


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Context with a temporary folder, removed when the context ends, also after Ctrl-C."""
    folder = Path(mkdtemp())
    with cleanup(lambda: _remove(folder)):
        try:
            yield folder
        finally:
            _remove(folder)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
