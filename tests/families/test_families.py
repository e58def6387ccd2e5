"""A new model family and a new task work with the trainer and the search unchanged."""

import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.batch import EOS, PAD, Batch
from decode import families as generators
from decode.families import make_generator
from decode.options import SearchOptions
from decode.search import search
from experiments.trainer import train
from model import families
from model.families import build_model
from model.sharding import make_mesh
from tests.decode.tiny_model import search_batch
from tests.experiments.commands import small_experiment
from tests.families.decoder_only import DecoderOnly, DecoderOnlyConfig, DecoderOnlySearch
from tests.families.language_modeling import LanguageModeling
from train.optimizer import make_optimizer
from train.state import create_state
from train.step import make_train_step

TEXT = (4, 5, 6)
CONFIGS = {
    "plain": {},
    "rotary": dict(positions="rotary", num_kv_heads=2, activation="swiglu", mlp_bias=False),
}


@pytest.fixture
def family(monkeypatch):
    monkeypatch.setitem(families.FAMILIES, DecoderOnlyConfig, DecoderOnly)
    monkeypatch.setitem(generators.GENERATORS, DecoderOnlyConfig, DecoderOnlySearch)

    def make(**changes):
        sizes = dict(vocab_size=7, decoder_layers=2, d_model=16, d_ff=24, num_heads=4, norm="pre")
        config = DecoderOnlyConfig(**(sizes | dict(dropout=0.0) | changes))
        return config, build_model(config)

    return make


def log_probs(model, params, src, output):
    """Log probabilities of an output's tokens [T], from one pass over prompt and output."""
    batch = Batch(src[None], np.asarray(output, np.int32)[None])
    f = model.apply({"params": params}, jax.tree.map(jnp.asarray, batch), method="features")
    logits = f.hidden[0] @ f.table.T
    token_log_probs = jax.nn.log_softmax(logits)
    return np.asarray(token_log_probs)[np.arange(len(output)), list(output)]


def outputs(limit):
    """All outputs of at most `limit` tokens, EOS included."""
    if limit == 1:
        return [(EOS,)]
    return [(EOS,)] + [(token, *rest) for token in TEXT for rest in outputs(limit - 1)]


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("method", ["beam", "sample"])
def test_search_scores_equal_the_models_log_probabilities(family, changes, method):
    config, model = family(**changes)
    params = nn.unbox(model.init_params(jax.random.key(3)))
    params = jax.tree.map(
        lambda x: x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), params
    )
    src = np.array([[5, 6, 4, EOS], [6, EOS, PAD, PAD]], np.int32)
    generator = make_generator(config)
    options = dict(beam_size=27, penalty="none", alpha=0.0, stopping="limit")
    if method == "sample":
        options = dict(method="sample", num_samples=3, n_best=3, penalty="none", alpha=0.0)
    result = search(
        [generator],
        [generator.pack(params, "float32")],
        search_batch(jnp.asarray(src), [3, 3]),
        options=SearchOptions(**options),
        max_length=3,
    )
    for row in range(2):
        for w in range(3):
            output = result.tokens[row, w, : result.lengths[row, w]]
            expected = log_probs(model, params, src[row], output)
            scores = result.token_scores[row, w, : len(output)]
            np.testing.assert_allclose(scores, expected, atol=2e-5)
        if method == "beam":
            sums = [log_probs(model, params, src[row], tokens).sum() for tokens in outputs(3)]
            np.testing.assert_allclose(result.scores[row, 0], max(sums), atol=5e-5)


def test_a_train_step_reduces_the_loss(family):
    config, model = family(vocab_size=20)
    mesh = make_mesh(1, devices=jax.devices()[:1])
    tx = make_optimizer("adam", 0.01)
    state = create_state(model, tx, jax.random.key(0), mesh)
    step, random = make_train_step(model, tx, mesh, label_smoothing=0.0), np.random.default_rng(0)
    ids = random.integers(4, 20, (250, 16, 3)).astype(np.int32)
    losses = []
    for row in ids:
        state, metrics = step(state, Batch(row, row))
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.7 * np.log(16)  # below the loss of a model that ignores its prompt


@pytest.mark.slow
def test_the_trainer_accepts_another_task(text, tmp_path):
    result = train(small_experiment(text), tmp_path / "run", task=LanguageModeling())
    assert result["step"] == 30 and result["test"].keys() == {"loss", "perplexity"}
    written = json.loads((tmp_path / "run" / "perplexity.json").read_text())
    assert written["loss"] == result["test"]["loss"] < 6
