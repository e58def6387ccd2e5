"""The train command: outputs, resuming, changed settings."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks.corruption import arrays, bitwise_equal
from data.tokenizer import Tokenizer
from experiments import restore, trainer, translation_task
from tests.experiments.commands import ROOT, error_line, heed, small_experiment, train_args
from tests.xla_for_tests import xla_flags
from train.checkpoint import CheckpointManager
from train.metrics import read_metrics

pytestmark = pytest.mark.slow


def test_a_training_run_writes_its_outputs(run):
    workdir, out, err = run
    result = json.loads(out.splitlines()[-1])
    counts = "num_params", "num_trainable_params"
    assert set(result) == {"step", *counts, "elapsed_seconds", "valid", "test"}
    assert result["num_params"] == result["num_trainable_params"] > 0
    assert result["step"] == 30 and set(result["valid"]) == {"loss", "bleu"}
    assert set(result["test"]) == {"bleu", "chrf", "signature", "chrf_signature"}
    assert result["test"]["signature"].startswith("nrefs:1") and result["elapsed_seconds"] > 0
    assert {"config.json", "tokenizer.model", "checkpoints", "metrics.jsonl", "tensorboard"} <= {
        p.name for p in workdir.iterdir()
    }
    events = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    train = [e for e in events if e["event"] == "train"]
    assert [e["step"] for e in train] == [5, 10, 15, 20, 25, 30]
    assert train[-1]["loss"] < train[0]["loss"] - 1
    valid = [e for e in events if e["event"] == "valid"]
    assert {e["step"] for e in valid} == {15, 30}
    assert all({"loss", "bleu", "elapsed_seconds"} <= set(e) for e in valid)
    (tested,) = (e for e in events if e["event"] == "test")
    assert tested["loss"] > 0 and tested["bleu"] == result["test"]["bleu"]
    assert "padding" in err and "compilations" in err and "dropped: 0 empty" in err
    assert "bleu" in err and re.search(r"time: .*bleu \d+%", err)
    assert any((workdir / "tensorboard").iterdir())


def test_the_best_checkpoint_is_tested(text, tmp_path, monkeypatch):
    """BLEU decreases with every validation, so that the first checkpoint is the best."""
    bleus = iter([50.0, 40.0, 30.0])
    scores = dict(chrf=1.0, signature="s", chrf_signature="c")
    fake_score = lambda *_: dict(bleu=next(bleus), **scores)  # noqa: E731
    monkeypatch.setattr(translation_task, "corpus_scores", fake_score)
    result = trainer.train(small_experiment(text), tmp_path / "run")
    assert result["step"] == 30 and result["valid"]["bleu"] == 50.0
    assert result["test"]["bleu"] == 30.0
    (tested,) = (e for e in read_metrics(tmp_path / "run") if e["event"] == "test")
    assert tested["checkpoint"] == 15
    flags = f"--workdir={tmp_path}/run", "--split=test"
    for spec, step in ("last", 30), ("best", 15):
        code, out, _ = heed("evaluate", *flags, f"--checkpoint={spec}")
        assert code == 0 and json.loads(out)["steps"] == [step]


def test_config_json_has_the_commit(run, text, tmp_path):
    workdir, *_ = run
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True)
    commit = json.loads((workdir / "config.json").read_text())["commit"]
    assert (
        commit is None if head.returncode else commit.removesuffix("-dirty") == head.stdout.strip()
    )


def test_it_trains_without_git(text, tmp_path):
    args = train_args(text, tmp_path / "run", "train.num_steps=2")
    env = {"PATH": "", "HOME": str(tmp_path)}
    code, _, err = heed("train", *args, env=env)
    assert code == 0, err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["commit"] is None


def test_many_settings_at_once(text, tmp_path):
    """A mesh, bfloat16, accumulation and two pretrained vocabularies; then a longer run."""
    for side, language in ("source", "en"), ("target", "de"):
        lines = (text / f"train.{language}").read_text().splitlines()
        Tokenizer.train(lines, 280).save(tmp_path / f"{side}.model")
    settings = f"""model.dtype=bfloat16 model.tying=decoder optimizer.grad_accum_steps=2
        data.shared_vocab=False data.vocab_size=280
        data.tokenizer_path={tmp_path}/source.model,{tmp_path}/target.model
        mesh.fsdp=2 mesh.tensor=2 optimizer.schedule=cosine optimizer.warmup_steps=1""".split()
    args = train_args(text, tmp_path / "run", *settings)
    four = {"XLA_FLAGS": xla_flags(4)}
    code, _, err = heed("train", *args, "--config.train.num_steps=4", env=four)
    assert code == 0, err
    assert "{'data': 1, 'fsdp': 2, 'tensor': 2}" in err
    shapes = int(re.search(r"in (\d+) shapes", err)[1])
    assert 1 <= int(re.search(r"; (\d+) compilations of the train step", err)[1]) <= shapes
    code, _, err = heed("train", *args, "--config.train.num_steps=6", env=four)
    message = (
        "resuming at step 4 with train.num_steps=6; the learning-rate schedule ended at step 4"
    )
    assert code == 0 and message in err, err
    last = [arrays(tmp_path / "run/checkpoints", step, tmp_path / "run") for step in (4, 6)]
    assert not bitwise_equal(*last)  # parameters have changed
    for side in "source", "target":
        run_tokenizer = tmp_path / "run" / f"tokenizer.{side}.model"
        assert run_tokenizer.read_bytes() == (tmp_path / f"{side}.model").read_bytes()


def test_the_vocabulary_is_trained_on_the_training_split_only(run, text, tmp_path):
    folder = tmp_path / "text"
    shutil.copytree(text, folder)
    for split in "valid", "test":
        for language in "en", "de":
            (folder / f"{split}.{language}").write_text("zebra zoo quux\n" * 6)
    assert heed("train", *train_args(folder, tmp_path / "run", "train.num_steps=1"))[0] == 0
    vocabularies = [(w / "tokenizer.model").read_bytes() for w in (run[0], tmp_path / "run")]
    assert vocabularies[0] == vocabularies[1]


def test_a_run_resumes_exactly(run, text, tmp_path):
    workdir, out, _ = run
    half = train_args(text, tmp_path / "half", "train.num_steps=15")
    assert heed("train", *half)[0] == 0
    code, resumed, err = heed("train", *train_args(text, tmp_path / "half"))
    assert code == 0 and "resuming at step 15" in err, err

    def losses(folder):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [(e["step"], e["loss"]) for e in map(json.loads, lines) if e["event"] == "train"]

    assert losses(tmp_path / "half") == losses(workdir)
    assert json.loads(resumed.splitlines()[-1])["test"] == json.loads(out.splitlines()[-1])["test"]


def test_a_run_resumes_with_other_batches_only_with_allow_batch_change(run, text, tmp_path):
    """It continues at the same fraction of its epoch, also when it is resumed again."""
    workdir = tmp_path / "run"
    shutil.copytree(run[0], workdir)
    args = train_args(text, workdir, "data.tokens_per_batch=800", "train.num_steps=33")
    line = error_line("train", *args)
    assert "its data.tokens_per_batch is 400, not 800" in line and "--allow_batch_change" in line
    code, _, err = heed("train", *args, "--allow_batch_change")
    assert code == 0, err
    new_batches = int(re.search(r"(\d+) batches an epoch in", err)[1])
    assert new_batches < 6  # 30 steps were 5 epochs
    resumed = f"resuming after batch {5 * new_batches} of the new schedule"
    assert f"was 6 batches per epoch): {resumed}" in err
    with CheckpointManager(workdir / "checkpoints") as checkpoints:
        meta = checkpoints.meta("last")
    assert (meta["batch_offset"], meta["batches_per_epoch"]) == (5 * new_batches - 30, new_batches)
    schedule = SimpleNamespace(batches_per_epoch=new_batches)
    assert (
        restore.schedule_offset(schedule, 33, meta) == meta["batch_offset"]
        and restore.schedule_offset(schedule, 0, {}) == 0
    )


def test_a_run_does_not_resume_with_other_training_text(run, text, tmp_path):
    workdir, folder = tmp_path / "run", tmp_path / "text"
    shutil.copytree(run[0], workdir)
    shutil.copytree(text, folder)
    lines = (folder / "train.de").read_text().splitlines(keepends=True)
    (folder / "train.de").write_text("".join([lines[1], lines[0], *lines[2:]]))
    changed = train_args(folder, workdir, "train.num_steps=40")
    assert "the training text is not the one" in error_line("train", *changed)


def test_a_learning_rate_of_zero_is_a_warning(text, tmp_path, capsys):
    c = small_experiment(text, num_steps=4, eval_every=9, log_every=1)
    optimizer = replace(c.optimizer, schedule="linear", warmup_steps=1, decay_steps=3)
    trainer.train(replace(c, optimizer=optimizer), tmp_path / "run")
    rates = [e["learning_rate"] for e in read_metrics(tmp_path / "run") if e["event"] == "train"]
    assert [rate > 0 for rate in rates] == [True, True, False, False]
    assert "warning: the learning rate is 0 from step 3 on: raise opt" in capsys.readouterr().err


def test_settings_of_a_run_without_checkpoints_may_change(run, text, tmp_path):
    options = text, tmp_path / "run", "data.vocab_size=280"
    diverging = train_args(
        *options, "optimizer.learning_rate=1e30", "train.max_consecutive_skips=9"
    )
    assert "training diverged" in error_line("train", *diverging)
    assert heed("train", *train_args(*options, "train.num_steps=2"))[0] == 0
    workdir, *_ = run
    flags = f"--workdir={workdir}", f"--ensemble={tmp_path}/run:2"
    assert f"/run:2 has another vocabulary than --workdir={workdir}: models of an" in error_line(
        "translate", *flags, stdin="a\n"
    )
