"""Clean the notebooks for a commit: no outputs, stable metadata.

    python -m experiments.colab.clean

Removes outputs, counts and editor metadata, and numbers the cells, so that diffs show only changes.
"""

import sys
from pathlib import Path

import nbformat

from data.atomic_write import write_atomic
from experiments import cli

FOLDER = Path(__file__).parent
REPOSITORY = "heed/heed"  # on GitHub; the README names the same
BADGE = (
    "[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]"
    f"(https://colab.research.google.com/github/{REPOSITORY}/blob/main/experiments/colab/"
)


def clean(text: str) -> str:
    """Convert the JSON of a notebook to its committed form."""
    notebook = nbformat.reads(text, as_version=4)
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02d}", {}
        cell.source = cell.source.strip()
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    notebook.nbformat_minor = 5
    return nbformat.writes(notebook) + "\n"


def main() -> None:
    """Rewrite the notebooks that are not clean, and print their names."""
    for file in sorted(FOLDER.glob("*.ipynb")):
        text = file.read_text("utf-8")
        if clean(text) != text:
            write_atomic(file, clean(text).encode())
            print(file.name, file=sys.stderr)


if __name__ == "__main__":
    cli.run(main)
