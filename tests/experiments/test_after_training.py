"""Failures after the last checkpoint are warnings, not errors."""

import errno
import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from benchmarks.corruption import flip
from experiments import after_training, trainer, translation_task
from experiments import workdir as folders
from experiments.trainer import train
from model import TransformerConfig
from train.checkpoint import CheckpointError, CheckpointManager
from train.metrics import MetricsWriter, once, read_metrics
from train.multihost import PreemptedError

pytestmark = pytest.mark.slow


def raise_disk_full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device", "somewhere")


def warnings(capfd):
    """The warnings on stderr."""
    return [line for line in capfd.readouterr().err.splitlines() if "warning: " in line]


def test_a_corrupt_best_checkpoint_and_a_full_disk_after_training(
    run, tmp_path, monkeypatch, capfd
):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    for name in "report.html", "translations.jsonl":
        (folder / name).unlink()
    train_loop = trainer.train_loop

    def train_and_corrupt(t, checkpoints, *args):
        result = train_loop(t, checkpoints, *args)
        best = folder / "checkpoints" / str(checkpoints.best_step())
        flip(max(best.joinpath("params").rglob("d/*"), key=lambda path: path.stat().st_size))
        return result

    monkeypatch.setattr(trainer, "train_loop", train_and_corrupt)
    monkeypatch.setattr(after_training, "write_report", raise_disk_full)
    monkeypatch.setattr(translation_task, "write_translations", raise_disk_full)
    monkeypatch.setattr(after_training, "record_test", raise_disk_full)
    experiment = folders.read_config(folder)  # the vocabulary determines its size
    model = replace(experiment.model, vocab_size=TransformerConfig.vocab_size)
    result = train(replace(experiment, model=model), folder)
    corrupt, translations, unrecorded, report = warnings(capfd)
    with CheckpointManager(folder / "checkpoints") as checkpoints:
        best, other = checkpoints.best_first()
    assert f"step {best} is corrupt" in corrupt and f"testing step {other} instead" in corrupt
    assert translations.startswith("warning: translations.jsonl was not written: OSError: [Errno")
    assert unrecorded.startswith("warning: the test was not recorded: OSError: ")
    assert report.startswith("warning: report.html was not written: OSError: ")
    assert "No space left on device" in report
    valid = {e["step"]: e for e in read_metrics(folder) if e["event"] == "valid"}
    assert result["step"] == 30 and result["test"]["bleu"] >= 0
    assert result["valid"] == {name: valid[other][name] for name in ("loss", "bleu")}
    assert json.dumps(result)


class FakeCheckpoints:
    """Fake checkpoints with a best one."""

    folder = "checkpoints"

    def best_first(self):
        return [20, 30, 10]

    def best_step(self):
        return 20


CONTEXT = SimpleNamespace(workdir="w", mesh=None)


def test_the_best_intact_checkpoint_is_tested(monkeypatch, capfd):
    def load(workdir, step, mesh):
        if int(step) in corrupt:
            raise CheckpointError(f"step {step} is corrupt")
        return step

    monkeypatch.setattr(after_training.folders, "load", load)
    corrupt = {20, 30}
    assert after_training.load_best(CONTEXT, FakeCheckpoints()) == "10"
    assert warnings(capfd) == [
        "warning: step 20 is corrupt; testing step 30 instead",
        "warning: step 30 is corrupt; testing step 10 instead",
    ]
    corrupt = {10, 20, 30}
    with pytest.raises(CheckpointError, match="step 10 is corrupt"):
        after_training.load_best(CONTEXT, FakeCheckpoints())


def test_scores_are_null_without_a_test(tmp_path, capfd):
    with MetricsWriter(tmp_path) as writer:
        writer.write(20, "valid", {"loss": 1.5, "bleu": 3.0})
    t = SimpleNamespace(workdir=tmp_path, task=translation_task.TranslationTask())
    results = after_training.write_results(t, FakeCheckpoints(), None, 30, {"num_params": 1})
    assert results["test"] is None and results["valid"] == {"loss": 1.5, "bleu": 3.0}
    (line,) = warnings(capfd)
    assert line.startswith("warning: report.html was not written: ConfigError: ")
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    results = after_training.write_results(t, FakeCheckpoints(), None, 30, {"num_params": 1})
    assert results["valid"] == {"loss": None, "bleu": None}
    assert "metrics.jsonl was not read: DataError: " in warnings(capfd)[0]


def test_the_test_scores_repeat_no_warning_of_training(tmp_path):
    (tmp_path / "tensorboard").write_text("")
    warnings = []
    t = SimpleNamespace(workdir=tmp_path, warn=once(warnings.append))
    with MetricsWriter(tmp_path, 0, t.warn) as writer:
        writer.write(20, "valid", {"loss": 1.5})
    after_training.record_test(t, 20, {"bleu": 3.0, "checkpoint": 20})
    (line,) = warnings
    assert line.startswith(f"cannot write {tmp_path}/tensorboard: ")
    assert [event["step"] for event in read_metrics(tmp_path)] == [20, 20]


@pytest.mark.parametrize("error", [MemoryError(), ValueError("two\nlines"), RecursionError("deep")])
def test_any_failure_is_a_one_line_warning(error, capfd):
    def fail():
        raise error

    assert after_training.attempt("it was not done", fail) is None
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"warning: it was not done: {type(error).__name__}: ")


def test_preemption_and_failures_of_one_process_are_raised(monkeypatch):
    def fail(error):
        def action():
            raise error

        return action

    with pytest.raises(PreemptedError):
        after_training.attempt("", fail(PreemptedError("SIGTERM")))
    monkeypatch.setattr(after_training.jax, "process_count", lambda: 2)
    assert after_training.attempt("", fail(CheckpointError("all know")), collective=True) is None
    with pytest.raises(ValueError, match="one knows"):
        after_training.attempt("", fail(ValueError("one knows")), collective=True)
