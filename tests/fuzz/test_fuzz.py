"""Fuzzing: corrupt files of every format are read or rejected in one line.

tests/fuzz/run.py runs many more cases.
"""

import pytest

from tests.fuzz.cases import corrupt, outcome
from tests.fuzz.formats import FOLDERS, FORMATS

CASES = 20
# A run is readable even if lines of these files or a checkpoint's metrics are not.
ALWAYS_READABLE = "run.metrics", "run.environment", "run.translations", "run.checkpoint"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A function that returns the folder of a kind, written on first use."""
    folder_of_kind = {}

    def folder(kind):
        if kind not in folder_of_kind:
            folder_of_kind[kind] = tmp_path_factory.mktemp("fuzz") / "intact"
            FOLDERS[kind](folder_of_kind[kind])
        return folder_of_kind[kind]

    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_corrupt_files_are_accepted_or_rejected_in_one_line(name, folders):
    form = FORMATS[name]
    folder = folders(form.folder)
    file = folder / form.file
    intact = file.read_bytes()
    assert outcome(form, folder, intact)[:2] == (True, None)
    try:
        outcomes = [outcome(form, folder, corrupt(name, intact, 0, n)) for n in range(CASES)]
    finally:
        file.write_bytes(intact)
    failures = {n: result.failure for n, result in enumerate(outcomes) if result.failure}
    assert not failures
    assert name in ALWAYS_READABLE or not all(result.accepted for result in outcomes)
