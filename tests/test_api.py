"""The docstrings of all packages render with pdoc, without warnings."""

import subprocess
import sys

import pytest

from tests.experiments.commands import ROOT, environment

pytestmark = pytest.mark.slow

# Commands define flags of the same names; allow_override lets one process import them all.
RENDER = """
import pkgutil, sys, warnings
from pathlib import Path
from absl import flags
import pdoc
packages = sys.argv[2:]
names = [m.name for p in packages for m in pkgutil.walk_packages([p], f"{p}.")]
for name in names:
    __import__(name)
    for flag in flags.FLAGS:
        flags.FLAGS[flag].allow_override = True
warnings.simplefilter("error")
# pdoc omits the modules of a package with __all__: name them.
unlisted = [name for name in names if hasattr(sys.modules[name.rpartition(".")[0]], "__all__")]
pdoc.pdoc(*packages, *unlisted, output_directory=Path(sys.argv[1]))
print(len(names))
"""
PACKAGES = ("model", "data", "train", "decode", "interop", "serve", "experiments")


def test_docstrings_render(tmp_path):
    process = subprocess.run(
        [sys.executable, "-c", RENDER, tmp_path, *PACKAGES],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0 and process.stderr == "", process.stderr
    for package in PACKAGES:
        modules = [
            file for file in (ROOT / package).rglob("*.py") if not file.stem.startswith("__")
        ]
        for module in modules:
            page = tmp_path / module.relative_to(ROOT).with_suffix(".html")
            assert page.exists(), module
    attention = (tmp_path / "model" / "attention.html").read_text()
    assert "MultiHeadAttention.attend" in attention and "Cross-attention of x" in attention
