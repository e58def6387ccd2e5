"""Locate a model to import: a folder, an installed package, or a file."""

from importlib.util import find_spec
from pathlib import Path

from data.errors import DataError

_PACKAGE = "package:"


def locate_folder(location: str) -> Path:
    """Return the folder of a path or of package:NAME/PATH, without imports. Raises DataError.

    The path may also be a .pt file, because a folder may have several.
    """
    if not location.startswith(_PACKAGE):
        folder = Path(location)
    else:
        name, _, path = location.removeprefix(_PACKAGE).partition("/")
        spec = find_spec(name) if name.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise DataError(f"--from={location}: package {name!r} is not installed")
        folder = Path(spec.submodule_search_locations[0]) / path
    if not folder.is_dir() and not (folder.suffix == ".pt" and folder.is_file()):
        raise DataError(f"--from={location}: {folder} is not a folder")
    return folder
