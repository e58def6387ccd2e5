"""Which room may import which: the plan of the house, read off the code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "model": set(),
    "data": set(),
    "train": {"model", "data"},
    "decode": {"model", "data"},
    "experiments": {"model", "data", "train", "decode"},
}
FILES = [(room, file) for room in MAY_IMPORT for file in sorted((ROOT / room).rglob("*.py"))]


def imported(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module.split(".")[0]


@pytest.mark.parametrize(("room", "file"), FILES, ids=lambda p: getattr(p, "name", p))
def test_rooms_import_only_what_the_plan_allows(room, file):
    ours = set(imported(file)) & set(MAY_IMPORT)
    assert ours <= MAY_IMPORT[room] | {room}


def test_only_experiments_has_flags_and_no_one_has_tensorflow():
    for room, file in FILES:
        names = set(imported(file))
        assert "tensorflow" not in names and "torch" not in names, file
        assert room == "experiments" or "absl" not in names, file
