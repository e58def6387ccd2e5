"""Folders that are complete, or as they were before."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp

from experiments.signals import cleanup


@contextmanager
def removed_unless_done(folder: Path) -> Iterator[None]:
    """Within it `folder` is there; an error or Ctrl-C removes what was not there before."""
    made = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    before = set(folder.iterdir()) if folder.exists() else set()

    def restore() -> None:
        for path in set(folder.iterdir()) - before if folder.exists() else ():
            _remove(path)
        for each in made:
            with suppress(OSError):  # where there is something of others in it
                each.rmdir()

    with cleanup(restore):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            yield
        except BaseException:
            restore()
            raise


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that is there within it, and gone after it, also after Ctrl-C."""
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
