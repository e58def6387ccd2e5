"""Write the file list of docs/architecture.md from the first lines of the modules' docstrings.

    python docs/list_files.py

A test compares the list with the code.
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("model", "data", "train", "decode", "interop", "serve", "experiments", "benchmarks")
HEADING = "## File list\n"


def summary(file: Path) -> str:
    """First line of a module's docstring."""
    docstring = ast.get_docstring(ast.parse(file.read_text("utf-8")))
    return (docstring or "").partition("\n")[0]


def file_list() -> str:
    """Markdown tables of all modules, one per folder, after the package's docstring."""
    lines = [HEADING, "Generated from the docstrings by `python docs/list_files.py`."]
    for package in PACKAGES:
        folders = sorted({file.parent for file in (ROOT / package).rglob("*.py")})
        for folder in folders:
            init = folder / "__init__.py"
            lines += ["", f"### {folder.relative_to(ROOT)}/", "", summary(init), ""]
            lines += ["| file | content |", "|---|---|"]
            for file in sorted(folder.glob("*.py")):
                if file != init:
                    path = file.relative_to(ROOT).as_posix()
                    lines.append(f"| [{file.name}](../{path}) | {summary(file)} |")
    return "\n".join(lines) + "\n"


def updated(page: str) -> str:
    """The page with a new file list, which is its last section."""
    return page.partition(HEADING)[0] + file_list()


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text("utf-8")), "utf-8")
