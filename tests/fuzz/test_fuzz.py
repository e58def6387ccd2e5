"""Corrupt files of every format are read or rejected in one line: some cases of each, by a seed.

benchmarks/fuzz.py tries thousands.
"""

import pytest

from tests.fuzz.cases import corrupt, outcome
from tests.fuzz.formats import FOLDERS, FORMATS

CASES = 20
# A run is read also where lines of these, or what a checkpoint scored, cannot be.
LINES = "run.metrics", "run.environment", "run.translations", "run.checkpoint"


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Each kind's folder, made when it is first asked for."""
    made = {}

    def folder(kind):
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp("fuzz") / "whole"
            FOLDERS[kind](made[kind])
        return made[kind]

    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_told_in_one_line(name, folders):
    form = FORMATS[name]
    folder = folders(form.folder)
    file = folder / form.file
    whole = file.read_bytes()
    assert outcome(form, folder, whole)[:2] == (True, None)
    try:
        found = [outcome(form, folder, corrupt(name, whole, 0, n)) for n in range(CASES)]
    finally:
        file.write_bytes(whole)
    failures = {n: each.failure for n, each in enumerate(found) if each.failure}
    assert not failures
    assert name in LINES or not all(each.accepted for each in found)
