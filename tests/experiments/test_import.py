"""A Hugging Face folder becomes a run that all commands take; a mistake in it is one line."""

import json

import numpy as np
import pytest

from data.tokenizer import Vocabulary
from experiments.importing.huggingface import read_marian
from experiments.workdir import load, read_config
from tests.experiments.commands import heed, refused, train_args
from train.choice import CheckpointError


@pytest.fixture(scope="session")
def imported(marian, tmp_path_factory):
    """The run that the command makes of it, and what that says."""
    workdir = tmp_path_factory.mktemp("imported") / "run"
    code, out, err = heed("import_model", f"--from={marian}", f"--workdir={workdir}")
    assert code == 0, err
    return workdir, json.loads(out)


def test_the_run_is_the_model_with_its_own_search(imported, marian):
    workdir, told = imported
    experiment = read_config(workdir)
    search = experiment.search
    assert (search.beam_size, search.penalty, search.alpha) == (3, "average", 1.0)
    assert (search.stopping, search.max_length, search.allow_unknown) == ("now", 19, True)
    assert (experiment.data.source_language, experiment.data.target_language) == ("en", "de")
    trained, there = load(workdir), read_marian(marian)
    assert told["params"] == sum(np.size(leaf) for leaf in leaves(there.params))
    for ours, theirs in zip(leaves(trained.params), leaves(there.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert isinstance(Vocabulary.load(workdir).target, type(there.vocabulary.target))
    assert trained.vocabulary.joint and trained.step == 0


def leaves(tree):
    return [leaf for key in sorted(tree) for leaf in leaves(tree[key])] if hasattr(
        tree, "keys"
    ) else [tree]  # fmt: skip


def test_all_commands_take_it(imported, tmp_path):
    workdir, _ = imported
    here = f"--workdir={workdir}"
    text = ">>de<< The teacher reads the book.\n\nI am </s> a student, “here” 中.\n"
    code, out, err = heed("translate", here, "--format=jsonl", stdin=text)
    assert code == 0, err
    first, empty, last = map(json.loads, out.splitlines())
    assert first["source"][0] == ">>de<<" and empty["text"] == "" and "</s>" in last["source"][:-1]
    (tmp_path / "a").write_text(text)
    (tmp_path / "b").write_text("Der Lehrer.\nEin Buch.\nIch.\n")
    pair = f"{tmp_path}/a", f"{tmp_path}/b"
    code, out, err = heed("score", here, f"--source={pair[0]}", f"--target={pair[1]}")
    assert code == 0 and len(out.splitlines()) == 3, err
    code, out, err = heed("evaluate", here, f"--source={pair[0]}", f"--reference={pair[1]}")
    assert code == 0 and json.loads(out)["checkpoint"] == 0, err
    code, out, err = heed("attention", here, "--text=The book.", f"--output={tmp_path}/maps")
    assert code == 0 and (tmp_path / "maps" / "cross.png").exists(), err


def test_training_goes_on_from_its_weights(imported, text, tmp_path):
    workdir, _ = imported
    new = tmp_path / "new"
    changes = f"init_from={workdir}", "model.norm=pre", "train.num_steps=15", "train.eval_every=5"
    code, out, err = heed("train", *train_args(text, new, *changes))
    assert code == 0, err
    assert f"beginning with the weights of {workdir}" in err
    begun, ended = read_config(workdir), read_config(new)
    assert ended.model.norm == "post" and ended.model.d_ff == begun.model.d_ff
    losses = [json.loads(line) for line in (new / "metrics.jsonl").read_text().splitlines()]
    losses = [event["loss"] for event in losses if event["split"] == "valid"]
    assert losses[-1] < losses[0]
    assert Vocabulary.load(new).digest() == Vocabulary.load(workdir).digest()
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load(workdir, "15")
    assert "holds another run" in refused("train", *train_args(text, workdir))
    nowhere = train_args(text, tmp_path / "no", f"init_from={tmp_path}/nothing")
    assert "nothing holds no run" in refused("train", *nowhere)
