"""A Hugging Face folder becomes a run that all commands take; a mistake in it is one line."""

import json
import shutil
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.corruption import arrays, same
from data.batch import BOS
from data.pipeline import collate
from data.tokenizer import Tokenizer
from data.vocabulary import Vocabulary
from decode.attention_maps import attention_maps
from decode.options import SearchOptions
from decode.teacher_forcing import score_pairs
from decode.translate import Translator
from experiments.config import SearchConfig
from experiments.restore import init_state
from experiments.setup import set_up
from experiments.trainer import train
from experiments.translation_data import open_split
from experiments.workdir import load, read_config, write_config
from interop.hf_marian import read_marian
from model import ConfigError
from tests.experiments.commands import heed, small_experiment


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
    assert (search.stopping, search.max_length, search.allow_unknown) == ("unbeaten", 20, True)
    assert (experiment.data.source_language, experiment.data.target_language) == ("en", "de")
    trained, there = load(workdir), read_marian(marian)
    assert told["num_params"] == sum(np.size(leaf) for leaf in leaves(there.params))
    for ours, theirs in zip(leaves(trained.params), leaves(there.params), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert isinstance(Vocabulary.load(workdir).target, type(there.vocabulary.target))
    assert trained.vocabulary.shared and trained.step == 0


def leaves(tree):
    return [leaf for key in sorted(tree) for leaf in leaves(tree[key])] if hasattr(
        tree, "keys"
    ) else [tree]  # fmt: skip


@pytest.mark.slow
def test_it_translates_scores_and_shows_attention(imported):
    trained = load(imported[0])
    text = [">>de<< The teacher reads the book.", "", "I am </s> a student, “here” 中."]
    model = trained.model, trained.params, trained.vocabulary
    options = SearchOptions(**vars(trained.experiment.search))
    translator = Translator(*model, trained.mesh, options)
    (first, *_), (empty, *_), (last, *_) = translator.hypotheses(text)
    pieces = trained.vocabulary.source.pieces
    assert pieces(first.parts[0][0])[0] == ">>de<<" and empty.text == ""
    assert pieces(last.parts[0][0]).count("</s>") == 2
    assert max(len(first.tokens), len(last.tokens)) <= options.max_length
    scores = score_pairs(*model, text, ["Der Lehrer.", "Ein Buch.", "Ich."])
    assert all(map(np.isfinite, np.concatenate(scores)))
    rows = [jnp.asarray([[BOS, *first.tokens]], jnp.int32)] * 2
    maps = attention_maps(trained.model, trained.params, *rows)
    np.testing.assert_allclose(maps["cross"].sum(-1), 1.0, rtol=1e-5)


@pytest.mark.slow
def test_a_training_begins_with_exactly_these_weights_and_learns(imported, text, tmp_path):
    """It has their model, whatever its config says, and their search, where it has none itself."""
    workdir, _ = imported
    experiment = replace(small_experiment(text, ema_decay=0.9), init_from=str(workdir))
    t = set_up(replace(experiment, search=SearchConfig()), tmp_path / "new")
    begun = read_config(workdir)
    assert experiment.model.output_bias != begun.model.output_bias == t.model.config.output_bias
    assert t.experiment.search == begun.search != experiment.search
    assert t.model.config.dropout == experiment.model.dropout != begun.model.dropout
    assert t.vocabulary.digest() == load(workdir).vocabulary.digest()
    state, there = init_state(t), load(workdir).params
    for found in state.params, state.ema:
        for ours, theirs in zip(leaves(found), leaves(there), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    step, losses = t.make_train_step(), []
    batch = collate(t.data.pairs["train"], t.data.schedule[0], t.row_multiple)
    for _ in range(5):
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    assert losses[-1] < losses[0]


def test_settings_that_the_other_run_decides_are_refused_as_flags_and_reported_else(
    imported, text, tmp_path, capsys
):
    """And config.json says what is used: the model and the vocabulary are the other run's."""
    workdir, _ = imported
    c = replace(small_experiment(text), init_from=str(workdir), search=SearchConfig())
    theirs, new = read_config(workdir), tmp_path / "new"
    capsys.readouterr()
    t = set_up(c, new, from_flags=["model.dropout", "train.num_steps", "data.path"])
    told = capsys.readouterr().err
    assert "decides these, so they have no effect: " in told and f"init_from={workdir}" in told
    assert f"model.d_ff={c.model.d_ff}" in told and "data.vocab_size=290" in told
    used = t.experiment
    assert replace(used.model, dropout=theirs.model.dropout) == theirs.model
    assert used.data.vocab_size == used.model.vocab_size
    assert used.data.shared_vocab == (used.model.target_vocab_size is None)
    for name, value in ("model.d_ff", c.model.d_ff), ("data.vocab_size", 290):
        with pytest.raises(ConfigError, match=f"--config.{name}={value} has no effect: .* leave"):
            set_up(c, new, from_flags=[name])
    own = replace(c, data=replace(c.data, tokenizer_path="some.model"))
    with pytest.raises(ConfigError, match="data.tokenizer_path=some.model has no effect"):
        set_up(own, new, from_flags=["data.tokenizer_path"])
    # A flag of the search is heard, also where it says what the default is.
    assert theirs.search.beam_size != SearchConfig.beam_size
    assert t.experiment.search == theirs.search
    searching = set_up(c, new, from_flags=["search.beam_size"]).experiment.search
    assert searching.beam_size == SearchConfig.beam_size


def test_how_a_ready_made_vocabulary_was_learned_is_no_setting(text, tmp_path, capsys):
    """Nothing reads data.tokenizer where data.tokenizer_path is given."""
    lines = (text / "train.de").read_text().splitlines()
    Tokenizer.train(lines, 290).save(tmp_path / "some.model")
    c = small_experiment(text)
    ready = dict(tokenizer="unigram", tokenizer_path=str(tmp_path / "some.model"))
    c = replace(c, data=replace(c.data, **ready))
    assert set_up(c, tmp_path / "new").experiment.data.tokenizer == "bpe"
    assert "these, so they have no effect: data.tokenizer=unigram" in capsys.readouterr().err
    expected = "data.tokenizer=unigram has no effect: .*some.model is ready-made; leave it out"
    with pytest.raises(ConfigError, match=expected):
        set_up(c, tmp_path / "new", from_flags=["data.tokenizer"])


def test_a_training_leaves_the_run_that_it_begins_with_alone(imported, text, tmp_path):
    experiment = small_experiment(text)
    with pytest.raises(ConfigError, match="holds another run"):
        set_up(experiment, imported[0])
    with pytest.raises(ConfigError, match="--config.init_from=.*nothing holds no run"):
        set_up(replace(experiment, init_from=f"{tmp_path}/nothing"), tmp_path / "no")


@pytest.mark.slow
def test_a_training_needs_the_other_run_until_it_saved_only(imported, text, tmp_path):
    """Then it goes on exactly, and until then all that it took from there may still change."""
    begin = tmp_path / "begin"
    shutil.copytree(imported[0], begin)
    experiment = small_experiment(text, num_steps=8, eval_every=8, checkpoint_every=4)
    quick = replace(experiment.search, beam_size=1)  # what it learns is asked, not how it searches
    experiment = replace(experiment, init_from=str(begin), search=quick)
    first = replace(experiment, init_from="")
    (tmp_path / "parts").mkdir()
    write_config(tmp_path / "parts", first)  # it ended before it saved, and its vocabulary is there
    Vocabulary.train(open_split(first, "train"), 290, "bpe", True).save(tmp_path / "parts")
    train(experiment, tmp_path / "whole")
    few = replace(experiment.train, num_steps=4)
    train(replace(experiment, train=few), tmp_path / "parts")
    shutil.rmtree(begin)
    train(experiment, tmp_path / "parts")
    runs = tmp_path / "whole", tmp_path / "parts"
    assert same(*(arrays(run / "checkpoints", 8, run) for run in runs))
    assert load(tmp_path / "parts").vocabulary.digest() == load(imported[0]).vocabulary.digest()
