"""Pages name what is there: links, functions, flags, and figures that are counted."""

import ast
import re
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from experiments.config_io import default_config, to_experiment
from model import TABLE3
from tests.experiments.commands import ROOT
from tests.experiments.test_docs_commands import PAGES
from tests.model.test_config import SIZES, formula

PAPER = ROOT / "docs" / "paper.md"
SECTIONS = "3.1 3.2.1 3.2.2 3.2.3 3.3 3.4 3.5 4 5.1 5.2 5.3 5.4 6.1 6.2".split()


def links(page):
    """(what a link says, the file that it is of) for links within the repository."""
    for said, to in re.findall(r"\[([^]]*)\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not to.startswith("http"):
            yield said, page.parent / to


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for said, file in links(page):
        assert file.exists(), (said, file)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_paths_in_the_text_exist(page):
    found = re.findall(
        r"\b(?:model|data|train|decode|experiments|tests)/[\w/]+\.\w+", page.read_text()
    )
    for path in set(found):
        assert (ROOT / path).exists(), path


def spoken(page):
    """The lines of a page's text, its tables' too, that are in no fenced block."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S).splitlines()


@pytest.mark.slow
def test_settings_in_the_text_are_settings(monkeypatch):
    found = 0
    for page in PAGES:
        for line in spoken(page):
            given = re.findall(r"--config\.[a-z_.\d]+=[^\s`]+", line)
            given = [one.replace("=N", "=2").replace('"', "") for one in given]
            monkeypatch.setattr(sys, "argv", ["", *given])  # whose flags ml_collections makes
            values = flags.FlagValues()
            config_flags.DEFINE_config_dict("config", default_config(), flag_values=values)
            to_experiment(values(sys.argv) and values.config)
            found += len(given)
    assert found > 20


def test_flags_in_the_text_are_flags():
    files = [file for room in ("experiments", "benchmarks") for file in (ROOT / room).rglob("*.py")]
    known = re.findall(
        r'(?:DEFINE_\w+|define_float)\(\s*"(\w+)"', "".join(file.read_text() for file in files)
    )
    told = {
        name
        for page in PAGES
        for code in re.findall(r"`([^`]+)`", "\n".join(spoken(page)))
        for name in re.findall(r"(?:^|\s)--(?!config\b)([a-z]\w*+)(?!-)", code)
    }
    others = {"bpe"}  # fairseq's
    assert len(told) > 30 and told <= {*known} | others, told - {*known}


def defined(file):
    """All names that a module defines, methods and fields as Class.name."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        names |= set(_names(node))
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{name}" for inner in node.body for name in _names(inner)}
    return names


def _names(node):
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        yield node.name
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_the_papers_sections_lead_to_what_does_them():
    rows = re.findall(r"^\| (\d[\d.]*) \|", PAPER.read_text(), re.M)
    assert [*dict.fromkeys(rows)] == SECTIONS
    named = 0
    for said, file in links(PAPER):
        if file.suffix == ".py":
            for name in re.findall(r"`([^`]+)`", said):
                assert name in defined(file), f"{file} defines no {name}"
                named += 1
    assert named > 30


def test_table_3_has_our_counts():
    rows = re.findall(r"^\| (\w+) \|.*\| ([\d.]+) \|$", PAPER.read_text(), re.M)
    ours = {row: f"{formula(37_000, *SIZES[row]) / 1e6:.2f}" for row in TABLE3}
    assert dict(rows) == ours
