"""What would end or spoil a run later is rejected at its start, and in a dry run."""

import os
from dataclasses import replace
from threading import TIMEOUT_MAX

import jax.numpy as jnp
import pytest

from data.errors import DataError
from experiments.config import SearchConfig
from experiments.config_io import default_config, to_experiment
from experiments.environment import record_start
from experiments.setup import read_settings, schedule_and_optimizer, set_up
from experiments.temporary_folders import check_output_file
from experiments.unused_settings import report_unused_settings
from experiments.workdir import check_run_folder
from experiments.workdir_lock import lock, reserve_workdir
from model import ConfigError
from model.sharding import make_mesh
from tests.experiments.commands import small_experiment
from train.checksums import fingerprint

SEARCHES = {  # settings of a search, and the error of a start with them
    "of the vocabulary": (
        {"forced_bos_id": 290},
        "config.search.forced_bos_id=290 must be below the vocabulary's size, 290$",
    ),
    "of the beam": ({"beam_size": 300}, "config.search.beam_size=300 must be from 1 to the "),
    "of the text": (
        {"min_length": 40, "max_length_offset": 5},
        "BLEU of the valid split: line 1: config.search.min_length=40 is more than its limit, ",
    ),
    "of the length": (
        {"forced_bos_id": 7, "max_length": 1},
        "BLEU of the valid split: line 1: .* 1 tokens, but the length limit is 1",
    ),
}


@pytest.mark.parametrize("case", SEARCHES)
def test_a_search_that_bleu_cannot_run_is_rejected(case, text, tmp_path):
    settings, message = SEARCHES[case]
    experiment = replace(small_experiment(text), search=SearchConfig(**settings))
    with pytest.raises(ConfigError, match=message):
        set_up(experiment, tmp_path / "no")


LARGE = {
    "train.num_steps": 2**31,
    "train.checkpoint_every": 2**31,
    "train.seed": 2**32,
    "train.grace_seconds": 1e10,
    "train.heartbeat_timeout_seconds": 1e10,
    "train.stall_timeout_seconds": 1e10,
    "optimizer.decay_steps": 2**31,
    "optimizer.warmup_steps": 2**31,
    "data.vocab_size": 2**31,
    "data.tokens_per_batch": 2**31,
    "model.encoder_layers": 10**6,
    "model.d_ff": 2**31,
    "lora.rank": 2**31,
    "mesh.data": 2**31,
}


@pytest.mark.parametrize("name", LARGE)
def test_numbers_that_devices_or_timers_cannot_hold_are_rejected(name):
    group, setting = name.split(".")
    tree = default_config().to_dict()
    tree[group][setting] = LARGE[name]
    with pytest.raises(ConfigError, match=f"^config.{name}=.* must be at most [0-9]+$") as error:
        to_experiment(tree)
    tree[group][setting] = type(LARGE[name])(str(error.value).split()[-1])
    tree["init_from"] = "run"  # for lora.rank
    if name in ("train.num_steps", "optimizer.decay_steps"):
        tree["optimizer"]["schedule"] = "cosine"
    largest = to_experiment(tree)
    if "timeout" in name or "grace" in name:
        assert getattr(largest.train, setting) < TIMEOUT_MAX
    schedule_and_optimizer(largest)[0](jnp.int32(5))


UNUSED = {  # a flag without an effect, by the setting that it needs
    "data.path": ("elsewhere", "data.kind=demo"),
    "lora.alpha": (2.0, "lora.rank=0"),
    "lora.projections": ("query", "lora.rank=0"),
    "model.max_length": (2048, "model.positions=sinusoidal"),
    "model.relative_num_buckets": (16, "model.positions=sinusoidal"),
    "model.relative_max_distance": (64, "model.positions=sinusoidal"),
}


@pytest.mark.parametrize("name", UNUSED)
def test_a_flag_without_effect_is_rejected(name):
    value, needed = UNUSED[name]
    group, setting = name.split(".")
    tree = default_config().to_dict()
    tree[group][setting] = value
    experiment = to_experiment(tree)
    report_unused_settings(experiment, experiment, [])  # a config file may serve several commands
    message = f"^--config.{name}={value} has no effect with config.{needed}: leave it out, or chang"
    with pytest.raises(ConfigError, match=message):
        report_unused_settings(experiment, experiment, [name])
    other, choice = {
        "data": ("kind", "text"),
        "lora": ("rank", 4),
        "model": ("positions", "learned" if setting == "max_length" else "t5_bias"),
    }[group]
    tree[group][other] = choice
    tree["init_from"] = "run"
    used = to_experiment(tree)
    report_unused_settings(used, used, [name])


def test_the_demo_alone_has_a_seed():
    tree = default_config().to_dict()
    tree["data"]["seed"] = 5
    demo = to_experiment(tree)
    report_unused_settings(demo, demo, ["data.seed"])
    text = replace(demo, data=replace(demo.data, kind="text"))
    with pytest.raises(ConfigError, match="data.seed=5 has no effect with config.data.kind=text: "):
        report_unused_settings(text, text, ["data.seed"])


FILES = (
    "metrics.jsonl environment.jsonl translations.jsonl report.html config.json tokenizer.model "
    "tokenizer.source.model tokenizer.target.model shortlist.npz lock lock.owner"
)


@pytest.mark.parametrize("name", FILES.split())
def test_a_pipe_in_place_of_a_file_of_the_run_is_rejected(name, tmp_path):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError, match=f"{name} is not a regular file: remove it, or choose"):
        with reserve_workdir(tmp_path):
            pass
    assert os.listdir(tmp_path) == [name]


@pytest.mark.parametrize("name", ["checkpoints", "base", "tensorboard", "heartbeats"])
def test_a_file_in_place_of_a_folder_of_the_run_is_rejected(name, text, tmp_path):
    (tmp_path / name).write_text("")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / name).symlink_to("missing")
    for folder in tmp_path, tmp_path / "other":
        with pytest.raises(ConfigError, match=f"{name} is not a folder: remove it, or choose"):
            read_settings(small_experiment(text), folder)  # as in a dry run


def test_an_unwritable_checkpoint_folder_is_rejected(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    check_run_folder(tmp_path)
    access = os.access
    writable = lambda path, mode: "checkpoints" not in str(path) and access(path, mode)  # noqa: E731
    monkeypatch.setattr(os, "access", writable)  # root may write everywhere
    with pytest.raises(ConfigError, match="checkpoints is not a writable folder: "):
        check_run_folder(tmp_path)


def test_no_reader_of_a_run_waits_for_a_pipe(tmp_path):
    """Another process may create one after the start."""
    for name in "environment.jsonl", "digests.json":
        os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="environment.jsonl is not a regular file"):
        record_start(tmp_path, make_mesh())
    with pytest.raises(DataError, match="digests.json is not a regular file"):
        fingerprint(tmp_path)
    with lock(tmp_path):
        (tmp_path / "lock.owner").unlink()
        os.mkfifo(tmp_path / "lock.owner")
        with pytest.raises(ConfigError, match="in use: another process trains there"):
            with lock(tmp_path):
                pass


def test_an_output_is_checked_before_the_work(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("folder/file")
    for name in "new", "pipe", "/dev/stdout", "/dev/null":
        check_output_file(tmp_path / name)
    with pytest.raises(DataError, match=f"link: there is no folder {tmp_path}/folder$"):
        check_output_file(tmp_path / "link")
    (tmp_path / "folder").mkdir()
    check_output_file(tmp_path / "link")
    access = os.access
    writable = lambda path, mode: str(path) != str(tmp_path / "folder") and access(path, mode)  # noqa: E731
    monkeypatch.setattr(os, "access", writable)  # root may write everywhere
    for name in "link", "folder", "folder/new":
        with pytest.raises(DataError, match=f"--output={tmp_path}/{name} cannot be written to"):
            check_output_file(tmp_path / name)
