"""Every notebook runs top to bottom in fast mode, and is committed without outputs."""

import re

import nbformat
import pytest
from nbclient import NotebookClient

from experiments.colab.clean import BADGE, FOLDER, REPOSITORY, clean
from tests.experiments.commands import ROOT, environment

pytestmark = pytest.mark.slow

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# Number of pictures of each notebook; 2 trains the model of 1 and 4.
PICTURES = {"2": 3, "1": 7, "4": 1, "3": 1, "5": 0, "6": 0}


def run_notebook(number, folder):
    """Runs a notebook in its own kernel, in `folder`; returns its text outputs."""
    (file,) = (file for file in NOTEBOOKS if file.name.startswith(f"{number}_"))
    notebook = nbformat.read(file, as_version=4)
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    client.execute(env=environment() | {"HEED_FAST": "1", "MPLBACKEND": "agg"})
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert pictures == PICTURES[number]
    return "".join(output.get("text", "") for output in outputs)


@pytest.mark.parametrize("numbers", ["214", "3", "5", "6"])
def test_notebooks_run(numbers, tmp_path):
    outputs = {number: run_notebook(number, tmp_path) for number in numbers}
    if numbers == "214":
        assert "step 30  loss" in outputs["2"] and "loss" not in outputs["1"] + outputs["4"]
        assert re.search(r"temperature 2: \d of 6 differ", outputs["4"])
    if numbers == "3":
        assert "step 30  loss" in outputs["3"]
        assert (tmp_path / "runs" / "mine" / "config.json").exists()
    if numbers == "6":
        assert outputs["6"].count("activations and gradients") == 2
        assert outputs["6"].count("tokens/s, loss") == 2
    if numbers == "5":
        sharded = re.search(r"'fsdp': 8, .* bytes (.*) loss", outputs["5"])[1]
        assert "all-gather" in sharded
        total, shard = (
            int(n.replace(",", "")) for n in re.findall(r"([\d,]+) bytes", outputs["5"])[:2]
        )
        assert 7 * shard < total < 8 * shard  # the hidden layer's biases are not sharded


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.name)
def test_notebooks_are_clean_and_have_a_badge(file):
    text = file.read_text()
    assert clean(text) == text, "run python -m experiments.colab.clean"
    first = nbformat.reads(text, as_version=4).cells[0]
    assert f"{BADGE}{file.name})" in first.source


def test_cleaning_removes_outputs():
    text = NOTEBOOKS[0].read_text()
    notebook = nbformat.reads(text, as_version=4)
    notebook.cells[1].update(execution_count=3, metadata={"collapsed": True}, id="a-b")
    notebook.cells[1].outputs = [nbformat.v4.new_output("stream", text="hot")]
    notebook.metadata["widgets"] = {}
    assert clean(nbformat.writes(notebook)) == text


def test_all_pages_name_the_same_repository():
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *NOTEBOOKS]
    repositories = {name for page in pages for name in _repositories(page.read_text())}
    assert repositories == {REPOSITORY}


def _repositories(text):
    return re.findall(
        r"(?:git\+https://github\.com|/github)/([\w.-]+/[\w.-]+?)(?=[/\"')\s\\])", text
    )
