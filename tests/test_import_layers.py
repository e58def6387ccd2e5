"""Import layers: which package may import which."""

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
    "aot": {"model", "data", "train", "decode"},
    "experiments": {"model", "data", "train", "decode", "interop", "serve", "aot"},
    "benchmarks": {"model", "data", "train", "decode", "interop", "serve", "aot", "experiments"},
}
# Modules of experiments/ that interop/ and serve/ may use; these import neither of them.
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
SHARED = {f"experiments.{name}" for name in (*SHARED, "workdir")}
FILES = [
    (package, file) for package in MAY_IMPORT for file in sorted((ROOT / package).rglob("*.py"))
]


def imported_names(file, types=True):
    """Names that a file imports: modules, and for `from a import b` both a and a.b."""
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


def imported_packages(file):
    """Packages that a file imports."""
    return (name.split(".")[0] for name in imported_names(file))


@pytest.mark.parametrize(("package", "file"), FILES, ids=lambda p: getattr(p, "name", p))
def test_packages_import_only_what_the_table_allows(package, file):
    packages = set(imported_packages(file)) & {*MAY_IMPORT, "tests"}
    assert packages <= MAY_IMPORT[package] | {package}


def test_interop_and_serve_import_only_the_shared_modules_of_experiments():
    for package, file in FILES:
        if package in ("interop", "serve"):
            names = {name for name in imported_names(file) if name.startswith("experiments.")}
            shared = tuple(f"{name}." for name in SHARED)
            assert all(n in SHARED or n.startswith(shared) for n in names), file
    for name in SHARED:
        path = ROOT / name.replace(".", "/")
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        assert not {"interop", "serve"} & set(imported_packages(file)), file


def test_there_is_no_import_cycle():
    """Imports inside functions count; `if TYPE_CHECKING` imports do not."""
    graph = {}
    for package, file in FILES:
        if package in ("model", "data", "train", "decode"):
            name = ".".join(file.relative_to(ROOT).with_suffix("").parts)
            graph[name.removesuffix(".__init__")] = set(imported_names(file, types=False))
    project_modules = set(graph)
    graph = {
        name: (names & project_modules) - {name, name.rpartition(".")[0]}
        for name, names in graph.items()
    }
    assert list(graphlib.TopologicalSorter(graph).static_order())


def test_only_commands_define_flags_and_nothing_imports_tensorflow():
    for package, file in FILES:
        names = set(imported_packages(file))
        assert "tensorflow" not in names, file
        assert "torch" not in names or package == "benchmarks", file
        assert package in ("experiments", "benchmarks") or "absl" not in names, file
