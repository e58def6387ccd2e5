"""Corrupt or foreign config.json files: a one-line error with file and key."""

import json
import os
import subprocess
from dataclasses import asdict

import pytest

from experiments.config import Experiment
from experiments.git_commit import code_commit
from experiments.workdir import read_config, read_previous, write_config
from model import ConfigError

TREE = asdict(Experiment())
DEEP = "[" * 100_000 + "]" * 100_000


def with_setting(group, name, value):
    """config.json with `value`, as JSON text, for one setting."""
    tree = json.dumps({"experiment": TREE | {group: TREE[group] | {name: "VALUE"}}})
    return tree.replace('"VALUE"', value)


def with_group(group, value):
    return json.dumps({"experiment": TREE | {group: value}})


INVALID = {
    "invalid JSON": ("{", "is not JSON"),
    "empty": ("", "is not JSON"),
    "a list": ("[]", "expected object, got array"),
    "no experiment": ("{}", "experiment: it is missing"),
    "experiment null": ('{"experiment": null}', "experiment: expected object, got null"),
    "a commit": (json.dumps({"experiment": TREE, "commit": 3}), "commit: expected str | null"),
    "no settings": ('{"experiment": {}}', "config.model is missing"),
    "group null": (with_group("data", None), "config.data=null must be an object of settings"),
    "group text": (with_group("model", "big"), "config.model='big' must be an object"),
    "group list": (with_group("train", [1]), "config.train=[1] must be an object"),
    "group number": (with_group("mesh", 3), "config.mesh=3 must be an object"),
    "no object": (with_group("init_from", {}), "config.init_from={} must be str"),
    "unknown group": (with_group("optimiser", {}), "optimiser is unknown: did you mean optimizer?"),
    "unknown key": (
        with_setting("train", "num_step", "3"),
        "config.train.num_step is unknown: did you mean num_steps?",
    ),
    "text": (with_setting("train", "num_steps", '"3"'), "config.train.num_steps='3' must be int"),
    "null": (with_setting("train", "num_steps", "null"), "train.num_steps=null must be int"),
    "boolean": (with_setting("train", "seed", "true"), "config.train.seed=True must be int"),
    "fraction": (with_setting("model", "d_ff", "1.5"), "config.model.d_ff=1.5 must be int"),
    "bits": (with_setting("model", "dropout_bits", "16.0"), "model.dropout_bits=16.0 must be int"),
    "choice": (with_setting("model", "norm", "[]"), "config.model.norm=[] must be str"),
    "NaN": (with_setting("optimizer", "learning_rate", "NaN"), "is not JSON"),
    "huge": (with_setting("model", "d_ff", "1" + "0" * 400), "model.d_ff does not fit into 64"),
    "longer": (with_setting("model", "d_ff", "1" + "0" * 5000), "integer value out of range"),
    "float": (with_setting("optimizer", "b1", "1" + "0" * 400), "b1 does not fit into 64 bits"),
    "infinite": (with_setting("optimizer", "b1", "1e400"), "number out of range"),
    "nested": (with_setting("train", "seed", DEEP), "nested too deeply"),
    "long": (with_setting("train", "seed", json.dumps([[0] * 50] * 9999)), "config.train.seed=[["),
    "surrogate": (with_setting("data", "path", r'"\ud800"'), "is not JSON"),
    "UTF-16": (json.dumps({"experiment": TREE}).encode("utf-16"), "is not JSON"),
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_config_is_a_one_line_error_with_file_and_key(case, tmp_path):
    content, expected = INVALID[case]
    file = tmp_path / "config.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as error:
        read_config(tmp_path)
    message = str(error.value)
    assert message.startswith(str(file)) and expected in message, message
    assert "\n" not in message and len(message) < 500
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(ConfigError):
        read_previous(tmp_path)


def test_special_files_are_rejected(tmp_path):
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(ConfigError, match="config.json is not a regular file"):
        read_config(tmp_path)


def test_the_config_of_a_failed_start_is_ignored_but_another_programs_file_is_kept(tmp_path):
    (tmp_path / "config.json").write_text('{"experiment": {"of": "an earlier version"}}')
    assert read_previous(tmp_path) is None
    (tmp_path / "config.json").write_text('{"model_type": "marian"}')
    with pytest.raises(ConfigError, match="config.json: .*not the file of a run; choose another"):
        read_previous(tmp_path)
    write_config(tmp_path / ".", Experiment())
    assert read_config(tmp_path) == Experiment() and read_previous(tmp_path) is None


def git(folder, *args):
    identity = "-c", "user.name=x", "-c", "user.email=x"
    command = ["git", "-C", str(folder), *identity, *args]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_of_the_repository_that_tracks_the_code(tmp_path, monkeypatch):
    """Installed code is not tracked by the repository around its virtual environment."""
    git(tmp_path, "init", "-q")
    (tmp_path / "tracked.py").write_text("")
    git(tmp_path, "add", "tracked.py")
    git(tmp_path, "commit", "-qm", "x")
    installed = tmp_path / ".venv" / "site-packages" / "heed.py"
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    assert code_commit(str(installed)) is None
    head = git(tmp_path, "rev-parse", "HEAD")
    assert code_commit(str(tmp_path / "tracked.py")) == head
    (tmp_path / "tracked.py").write_text("1")
    assert code_commit(str(tmp_path / "tracked.py")) == f"{head}-dirty"
    other = tmp_path / "other"
    git(tmp_path, "init", "-q", str(other))
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))  # as in a hook of another repository
    assert code_commit(str(tmp_path / "tracked.py")) == f"{head}-dirty"
    assert code_commit("/tracked.py") is None


@pytest.mark.parametrize("value", ["x" * 3000, "\u2028"])
def test_long_and_unprintable_values_are_in_a_readable_line(value, tmp_path):
    content = with_setting("model", "dtype", json.dumps(value))
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ConfigError, match="model.dtype='") as error:
        read_config(tmp_path)
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 1500
