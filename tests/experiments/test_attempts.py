"""Starts without a checkpoint have no effect on later starts in the same folder."""

import json
import shutil
from dataclasses import replace

import pytest

from data.tokenizer import Tokenizer
from experiments import trainer, workdir
from experiments.setup import set_up
from experiments.trainer import train
from model import ConfigError, TransformerConfig
from tests.experiments.commands import small_experiment
from train.checkpoint import CheckpointManager
from train.metrics import MetricsWriter

pytestmark = pytest.mark.slow


class DiedError(Exception):
    """Simulates a kill before the first checkpoint."""


@pytest.fixture
def attempt(monkeypatch):
    """Starts a run that ends before its first checkpoint; returns its context."""

    def start(experiment, folder, **options):
        contexts = []

        def die(t, *_):
            contexts.append(t)
            with MetricsWriter(t.workdir, 0) as writer:
                writer.write(5, "train", {"loss": 1.0})
            raise DiedError

        with monkeypatch.context() as patch:
            patch.setattr(trainer, "train_loop", die)
            with pytest.raises(DiedError):
                train(experiment, folder, **options)
        return contexts[0]

    return start


def files(folder):
    """The files of a run's folder that do not depend on time and place."""
    changing = {"environment.jsonl", "lock.owner", "metrics.jsonl"}
    paths = {path.name: path for path in folder.iterdir() if path.is_file()}
    return {name: path.read_bytes() for name, path in paths.items() if name not in changing}


def with_schedule(experiment, name, steps, **changes):
    optimizer = replace(experiment.optimizer, schedule=name, **changes)
    return replace(
        experiment, optimizer=optimizer, train=replace(experiment.train, num_steps=steps)
    )


@pytest.mark.parametrize("steps", [(1000, 30), (10, 30)], ids=str)
def test_a_failed_start_leaves_nothing_to_the_next_one(text, tmp_path, attempt, steps):
    first, second = (with_schedule(small_experiment(text), "cosine", n) for n in steps)
    Tokenizer.train(["cat dog red two Hund Katze rot"] * 50, 280).save(tmp_path / "ready.model")
    data = replace(first.data, tokenizer_path=str(tmp_path / "ready.model"))
    shared = tmp_path / "both"
    attempt(replace(first, data=data, search=replace(first.search, beam_size=2)), shared)
    for name in "translations.jsonl", "report.html", "shortlist.npz":
        (shared / name).write_text("of the first attempt")
    (shared / "base" / "0").mkdir(parents=True)
    (shared / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir(parents=True)  # killed while saving
    config = json.loads((shared / "config.json").read_text())
    (shared / "config.json").write_text(json.dumps(config | {"commit": "of the first attempt"}))
    t = attempt(second, shared)
    clean = attempt(second, tmp_path / "fresh")
    assert t.experiment == clean.experiment
    assert t.vocabulary.digest() == clean.vocabulary.digest()
    assert float(t.learning_rate(10)) > 0 and float(t.learning_rate(steps[1] - 1)) == 0
    assert files(shared) == files(tmp_path / "fresh") and not (shared / "base").exists()
    assert len((shared / "environment.jsonl").read_text().splitlines()) == 1
    assert "of the first" not in (shared / "config.json").read_text()


def test_an_unreadable_config_of_a_failed_start_is_replaced(text, tmp_path, attempt):
    folder, c = tmp_path / "run", small_experiment(text)
    attempt(c, folder)
    tree = {"experiment": {"of": "an earlier version"}}
    (folder / "config.json").write_text(json.dumps(tree))
    attempt(c, folder)
    assert workdir.read_config(folder).train == c.train


def test_config_json_has_the_settings_as_given(text, tmp_path, attempt):
    """decay_steps=0 follows train.num_steps, so that a longer run has a longer schedule."""
    c = with_schedule(small_experiment(text), "linear", 30)
    attempt(c, tmp_path / "run")
    assert workdir.read_config(tmp_path / "run").optimizer.decay_steps == 0
    attempt(with_schedule(c, "linear", 30, decay_steps=20), tmp_path / "run")
    assert workdir.read_config(tmp_path / "run").optimizer.decay_steps == 20


@pytest.mark.parametrize(("split", "name"), [("valid", "validation"), ("test", "test")])
def test_a_run_does_not_resume_with_other_evaluation_text(run, text, tmp_path, split, name):
    folder, other = run[0], tmp_path / "text"
    shutil.copytree(text, other)
    with CheckpointManager(folder / "checkpoints") as checkpoints:
        meta = checkpoints.meta("last")
    c = workdir.read_config(folder)  # as the command has it: without the vocabulary size
    model = replace(c.model, vocab_size=TransformerConfig.vocab_size)
    c = replace(c, model=model, data=replace(c.data, path=str(other)))
    workdir.check_text(folder, set_up(c, folder).data.digests, meta)
    lines = (text / f"{split}.de").read_text().splitlines(keepends=True)
    (other / f"{split}.de").write_text("".join(["rot\n", *lines[1:]]))
    t = set_up(c, folder)
    with pytest.raises(ConfigError, match=f"the {name} text is not the one that the run in"):
        workdir.check_text(folder, t.data.digests, meta)


def command_experiment(folder):
    """A run's experiment as its command has it: without the vocabulary size."""
    c = workdir.read_config(folder)
    return replace(c, model=replace(c.model, vocab_size=TransformerConfig.vocab_size))


@pytest.mark.parametrize("split", ["train", "valid"])
def test_a_rejected_start_changes_no_file(run, text, tmp_path, split):
    folder, other = tmp_path / "run", tmp_path / "text"
    shutil.copytree(run[0], folder)
    shutil.copytree(text, other)
    lines = (text / f"{split}.de").read_text().splitlines(keepends=True)
    (other / f"{split}.de").write_text("".join(["rot\n", *lines[1:]]))
    c = command_experiment(folder)
    longer = replace(c.train, num_steps=c.train.num_steps + 10)
    c = replace(c, train=longer, data=replace(c.data, path=str(other)))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="text is not the one that the run in"):
        train(c, folder)
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for name in "lock", "lock.owner":
        before.pop(folder / name, None), after.pop(folder / name, None)
    assert after == before


def test_resuming_compares_settings_with_the_checkpoint(run, tmp_path, attempt, capfd):
    """A start that ended before saving has changed config.json, but not the run."""
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    c = command_experiment(folder)
    batches = replace(c.data, tokens_per_batch=2 * c.data.tokens_per_batch)
    longer = replace(c, data=batches, train=replace(c.train, num_steps=99))
    message = "resuming at step 30 with "
    for _ in range(2):  # both starts print the change
        t = attempt(longer, folder, allow_batch_change=True)
        assert workdir.read_config(folder).train.num_steps == 99
        err = capfd.readouterr().err
        assert message in err and "train.num_steps=99" in err and "data.tokens_per_batch=" in err
    t = attempt(c, folder)  # batches without a checkpoint do not matter
    line = "no steps remain after step 30: only the test is run again\n"
    assert line in capfd.readouterr().err and t.experiment.train == c.train
