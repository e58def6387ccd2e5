"""The docstrings of all rooms render, and pdoc has nothing to warn of."""

import subprocess
import sys

import pytest

from tests.experiments.commands import ROOT, environment

pytestmark = pytest.mark.slow

# Commands define flags of the same names, which one process may not have: here the last one's hold.
RENDER = """
import pkgutil, sys, warnings
from pathlib import Path
from absl import flags
import pdoc
rooms = sys.argv[2:]
names = [m.name for room in rooms for m in pkgutil.walk_packages([room], f"{room}.")]
for name in names:
    __import__(name)
    for flag in flags.FLAGS:
        flags.FLAGS[flag].allow_override = True
warnings.simplefilter("error")
# A package's __all__ leaves its modules out.
own = [name for name in names if hasattr(sys.modules[name.rpartition(".")[0]], "__all__")]
pdoc.pdoc(*rooms, *own, output_directory=Path(sys.argv[1]))
print(len(names))
"""
ROOMS = ("model", "data", "train", "decode", "interop", "serve", "experiments")


def test_docstrings_render(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RENDER, tmp_path, *ROOMS],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    for room in ROOMS:
        modules = [file for file in (ROOT / room).rglob("*.py") if not file.stem.startswith("__")]
        for module in modules:
            page = tmp_path / module.relative_to(ROOT).with_suffix(".html")
            assert page.exists(), module
    attention = (tmp_path / "model" / "attention.html").read_text()
    assert "MultiHeadAttention.attend" in attention and "Cross-attention of x" in attention
