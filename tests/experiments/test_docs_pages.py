"""Documentation pages: links, paths, flags, settings and parameter counts are valid."""

import ast
import re
import sys

import pytest
from absl import flags
from ml_collections import config_flags

from decode.inputs import LongInputPolicy
from experiments.config_io import default_config, to_experiment
from model import TABLE3
from tests.experiments.commands import ROOT, error_line
from tests.experiments.test_docs_commands import PAGES
from tests.model.test_config import SIZES, formula

PAPER = ROOT / "docs" / "paper.md"
DEFINED_FLAG = r'(?:DEFINE_\w+|define_float)\(\s*"(\w+)"'
SECTIONS = "3.1 3.2.1 3.2.2 3.2.3 3.3 3.4 3.5 4 5.1 5.2 5.3 5.4 6.1 6.2".split()


def links(page):
    """(text, target file) of links within the repository."""
    for link_text, target in re.findall(r"\[([^]]*)\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            yield link_text, page.parent / target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_have_targets(page):
    for link_text, file in links(page):
        assert file.exists(), (link_text, file)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_paths_in_the_text_exist(page):
    paths = re.findall(
        r"\b(?:model|data|train|decode|interop|serve|experiments|benchmarks|tests)/[\w/]+\.\w+",
        page.read_text(),
    )
    for path in set(paths):
        assert (ROOT / path).exists(), path


def prose(page):
    """The lines of a page outside fenced code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S).splitlines()


@pytest.mark.slow
def test_settings_in_the_text_are_valid(monkeypatch):
    count = 0
    for page in PAGES:
        for line in prose(page):
            settings = re.findall(r"--config\.[a-z_.\d]+=[^\s`]+", line)
            settings = [setting.replace("=N", "=2").replace('"', "") for setting in settings]
            # ml_collections defines the flags that are in argv.
            monkeypatch.setattr(sys, "argv", ["", *settings])
            values = flags.FlagValues()
            config_flags.DEFINE_config_dict("config", default_config(), flag_values=values)
            to_experiment(values(sys.argv) and values.config)
            count += len(settings)
    assert count > 20


def test_flags_in_the_text_are_defined():
    files = [
        file for package in ("experiments", "benchmarks") for file in (ROOT / package).rglob("*.py")
    ]
    defined_flags = re.findall(DEFINED_FLAG, "".join(file.read_text() for file in files))
    flags_in_text = {
        name
        for page in PAGES
        for code in re.findall(r"`([^`]+)`", "\n".join(prose(page)))
        for name in re.findall(r"(?:^|\s)--(?!config\b)([a-z]\w*+)(?!-)", code)
    }
    foreign_flags = {"bpe"}  # a fairseq flag
    assert len(flags_in_text) > 30 and flags_in_text <= {*defined_flags} | foreign_flags, (
        flags_in_text - {*defined_flags}
    )


@pytest.mark.slow
def test_values_of_search_flags_in_the_text_are_legal(tmp_path):
    names = re.findall(DEFINED_FLAG, (ROOT / "experiments" / "search_flags.py").read_text())
    values = [
        (name, value.strip('"'))
        for page in PAGES
        for code in re.findall(r"`([^`]+)`", "\n".join(prose(page)))
        for name, value in re.findall(r'--([a-z]\w*)=("[^"]*"|\S+)', code)
        if name in names
    ]
    assert {("method", "mbr"), ("stopping", "unbeatable"), ("penalty", "average")} <= {*values}
    for name, value in values:
        if name == "long_input":
            LongInputPolicy(value)  # raises InputError
    search_flags = [f"--{name}={value}" for name, value in values]
    arguments = "translate", f"--workdir={tmp_path}", "--format=jsonl", *search_flags
    assert "holds no run" in error_line(*arguments)  # flags are parsed before
    assert "should be one of" in error_line(*arguments, "--method=map")


def defined(file):
    """All names that a module defines; methods and fields as Class.name."""
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


def test_the_papers_sections_link_to_their_code():
    rows = re.findall(r"^\| (\d[\d.]*) \|", PAPER.read_text(), re.M)
    assert [*dict.fromkeys(rows)] == SECTIONS
    count = 0
    for link_text, file in links(PAPER):
        if file.suffix == ".py":
            for name in re.findall(r"`([^`]+)`", link_text):
                assert name in defined(file), f"{file} defines no {name}"
                count += 1
    assert count > 30


def test_table_3_has_heeds_parameter_counts():
    rows = re.findall(r"^\| (\w+) \|.*\| ([\d.]+) \|$", PAPER.read_text(), re.M)
    counts = {row: f"{formula(37_000, *SIZES[row]) / 1e6:.2f}" for row in TABLE3}
    assert dict(rows) == counts
