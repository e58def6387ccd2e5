"""Which package may import which, checked against the imports."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {
    "model": set(),
    "data": set(),
    "train": {"model", "data"},
    "decode": {"model", "data"},
    "interop": {"model", "data", "train", "decode", "experiments"},
    "serve": {"model", "data", "train", "decode", "experiments"},
    "experiments": {"model", "data", "train", "decode", "interop", "serve"},
}
# What interop/ and serve/ use of experiments/; it imports neither of them.
SHARED = (
    "config",
    "config_io",
    "console",
    "did_you_mean",
    "json_output",
    "report.templates",
    "signals",
    "temporary_folders",
)
SHARED = {f"experiments.{name}" for name in (*SHARED, "workdir", "workdir_lock")}
FILES = [
    (package, file) for package in MAY_IMPORT for file in sorted((ROOT / package).rglob("*.py"))
]


def modules(file, types=True):
    """What a file imports: modules, and for `from a import b` both a and a.b."""
    tree = ast.parse(file.read_text())
    if not types:
        tree.body = [n for n in tree.body if not ast.unparse(n).startswith("if TYPE_CHECKING")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(file):
    """The packages that a file imports."""
    return (name.split(".")[0] for name in modules(file))


@pytest.mark.parametrize(("package", "file"), FILES, ids=lambda p: getattr(p, "name", p))
def test_packages_import_only_what_the_table_allows(package, file):
    ours = set(imported(file)) & set(MAY_IMPORT)
    assert ours <= MAY_IMPORT[package] | {package}


def test_libraries_of_commands_are_in_no_import_cycle():
    for package, file in FILES:
        if package in ("interop", "serve"):
            of_experiments = {name for name in modules(file) if name.startswith("experiments.")}
            shared = tuple(f"{name}." for name in SHARED)
            assert all(n in SHARED or n.startswith(shared) for n in of_experiments), file
    for name in SHARED:
        path = ROOT / name.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        assert not {"interop", "serve"} & set(imported(file)), file


def test_there_is_no_import_cycle():
    """Imports within functions count too; those for type checkers alone do not."""
    graph = {}
    for package, file in FILES:
        if package in ("model", "data", "train", "decode"):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            graph[name.removesuffix(".__init__")] = set(modules(file, types=False))
    known = set(graph)
    graph = {
        name: (found & known) - {name, name.rpartition(".")[0]} for name, found in graph.items()
    }
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_only_experiments_has_flags_and_no_one_has_tensorflow():
    for package, file in FILES:
        names = set(imported(file))
        assert "tensorflow" not in names and "torch" not in names, file
        assert package == "experiments" or "absl" not in names, file
