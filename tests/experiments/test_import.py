"""An imported Hugging Face Marian folder is a run that all commands accept."""

import json
import shutil
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.corruption import arrays, bitwise_equal
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
    """The imported run, and the command's output."""
    workdir = tmp_path_factory.mktemp("imported") / "run"
    code, out, err = heed("import_model", f"--from={marian}", f"--workdir={workdir}")
    assert code == 0, err
    return workdir, json.loads(out)


def test_an_imported_run_has_the_model_and_its_search_settings(imported, marian):
    workdir, summary = imported
    experiment = read_config(workdir)
    search = experiment.search
    assert (search.beam_size, search.penalty, search.alpha) == (3, "average", 1.0)
    assert (search.stopping, search.max_length, search.allow_unknown) == ("unbeaten", 20, True)
    assert (experiment.data.source_language, experiment.data.target_language) == ("en", "de")
    trained, reference = load(workdir), read_marian(marian)
    assert summary["num_params"] == sum(np.size(leaf) for leaf in leaves(reference.params))
    for actual, expected in zip(leaves(trained.params), leaves(reference.params), strict=True):
        np.testing.assert_array_equal(actual, expected)
    assert isinstance(Vocabulary.load(workdir).target, type(reference.vocabulary.target))
    assert trained.vocabulary.shared and trained.step == 0


def leaves(tree):
    return [leaf for key in sorted(tree) for leaf in leaves(tree[key])] if hasattr(
        tree, "keys"
    ) else [tree]  # fmt: skip


@pytest.mark.slow
def test_an_imported_run_translates_scores_and_shows_attention(imported):
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
def test_training_starts_from_the_imported_weights(imported, text, tmp_path):
    """init_from overrides the model settings, and the search settings unless they are given."""
    workdir, _ = imported
    experiment = replace(small_experiment(text, ema_decay=0.9), init_from=str(workdir))
    t = set_up(replace(experiment, search=SearchConfig()), tmp_path / "new")
    base = read_config(workdir)
    assert experiment.model.output_bias != base.model.output_bias == t.model.config.output_bias
    assert t.experiment.search == base.search != experiment.search
    assert t.model.config.dropout == experiment.model.dropout != base.model.dropout
    assert t.vocabulary.digest() == load(workdir).vocabulary.digest()
    state, base_params = init_state(t), load(workdir).params
    for params in state.params, state.ema:
        for actual, expected in zip(leaves(params), leaves(base_params), strict=True):
            np.testing.assert_array_equal(actual, expected)
    step, losses = t.make_train_step(), []
    batch = collate(t.data.pairs["train"], t.data.schedule[0], t.row_multiple)
    for _ in range(5):
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    assert losses[-1] < losses[0]


def test_overridden_settings_are_rejected_as_flags_and_otherwise_reported(
    imported, text, tmp_path, capsys
):
    """The context has the other run's model and vocabulary settings."""
    workdir, _ = imported
    c = replace(small_experiment(text), init_from=str(workdir), search=SearchConfig())
    base, new = read_config(workdir), tmp_path / "new"
    capsys.readouterr()
    t = set_up(c, new, from_flags=["model.dropout", "train.num_steps", "data.path"])
    err = capsys.readouterr().err
    assert (
        "overrides these settings, which have no effect: " in err and f"init_from={workdir}" in err
    )
    assert f"model.d_ff={c.model.d_ff}" in err and "data.vocab_size=290" in err
    resolved = t.experiment
    assert replace(resolved.model, dropout=base.model.dropout) == base.model
    assert resolved.data.vocab_size == resolved.model.vocab_size
    assert resolved.data.shared_vocab == (resolved.model.target_vocab_size is None)
    for name, value in ("model.d_ff", c.model.d_ff), ("data.vocab_size", 290):
        with pytest.raises(ConfigError, match=f"--config.{name}={value} has no effect: .* leave"):
            set_up(c, new, from_flags=[name])
    with_tokenizer = replace(c, data=replace(c.data, tokenizer_path="some.model"))
    with pytest.raises(ConfigError, match="data.tokenizer_path=some.model has no effect"):
        set_up(with_tokenizer, new, from_flags=["data.tokenizer_path"])
    # A search flag has an effect even at its default value.
    assert base.search.beam_size != SearchConfig.beam_size
    assert t.experiment.search == base.search
    search = set_up(c, new, from_flags=["search.beam_size"]).experiment.search
    assert search.beam_size == SearchConfig.beam_size


def test_the_tokenizer_kind_has_no_effect_with_a_tokenizer_path(text, tmp_path, capsys):
    """data.tokenizer has no effect with data.tokenizer_path."""
    lines = (text / "train.de").read_text().splitlines()
    Tokenizer.train(lines, 290).save(tmp_path / "some.model")
    c = small_experiment(text)
    changes = dict(tokenizer="unigram", tokenizer_path=str(tmp_path / "some.model"))
    c = replace(c, data=replace(c.data, **changes))
    assert set_up(c, tmp_path / "new").experiment.data.tokenizer == "bpe"
    assert "these settings, which have no effect: data.tokenizer=unigram" in capsys.readouterr().err
    expected = "data.tokenizer=unigram has no effect: .*some.model is ready-made; leave it out"
    with pytest.raises(ConfigError, match=expected):
        set_up(c, tmp_path / "new", from_flags=["data.tokenizer"])


def test_training_does_not_change_the_run_of_init_from(imported, text, tmp_path):
    experiment = small_experiment(text)
    with pytest.raises(ConfigError, match="holds another run"):
        set_up(experiment, imported[0])
    with pytest.raises(ConfigError, match="--config.init_from=.*nothing holds no run"):
        set_up(replace(experiment, init_from=f"{tmp_path}/nothing"), tmp_path / "no")


@pytest.mark.slow
def test_training_needs_the_run_of_init_from_only_until_its_first_checkpoint(
    imported, text, tmp_path
):
    """After its first checkpoint it resumes exactly without the other run."""
    base = tmp_path / "base"
    shutil.copytree(imported[0], base)
    text = shutil.copytree(text, tmp_path / "text")
    for file in *text.glob("valid.*"), *text.glob("test.*"):  # one shape each to compile
        file.write_text(file.read_text().splitlines()[0] + "\n")
    experiment = small_experiment(text, num_steps=8, eval_every=8, checkpoint_every=4)
    search = replace(experiment.search, beam_size=1)  # a fast search: only training matters here
    data = replace(experiment.data, packing=True)  # one batch shape to compile
    experiment = replace(experiment, init_from=str(base), search=search, data=data)
    first = replace(experiment, init_from="")
    (tmp_path / "resumed").mkdir()
    write_config(tmp_path / "resumed", first)  # as left by a start that ended before saving
    Vocabulary.train(open_split(first, "train"), 290, "bpe", True).save(tmp_path / "resumed")
    train(experiment, tmp_path / "uninterrupted")
    half = replace(experiment.train, num_steps=4)
    train(replace(experiment, train=half), tmp_path / "resumed")
    shutil.rmtree(base)
    train(experiment, tmp_path / "resumed")
    runs = tmp_path / "uninterrupted", tmp_path / "resumed"
    assert bitwise_equal(*(arrays(run / "checkpoints", 8, run) for run in runs))
    assert load(tmp_path / "resumed").vocabulary.digest() == load(imported[0]).vocabulary.digest()
