"""Exports preserve the model; unsupported settings are rejected by name."""

import json
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from data.batch import BOS, EOS
from data.tokenizer import Tokenizer
from data.vocabulary import Vocabulary
from decode.families import make_generator
from decode.options import SearchOptions
from decode.search import search
from decode.weights import pack
from experiments.config import Experiment, SearchConfig
from experiments.workdir import LoadedModel
from interop import export_hf_marian, export_safetensors, export_stablehlo
from interop.hf_marian import read_marian
from model import ConfigError, Transformer
from model.sharding import make_mesh
from tests.decode.tiny_model import CONFIG as SMALLEST
from tests.decode.tiny_model import parameters, search_batch
from tests.experiments.commands import environment, error_line, heed
from tests.experiments.marian_folders import lines, save_folder
from tests.experiments.test_import import leaves
from tests.experiments.test_import_mistakes import change

CONFIG = replace(SMALLEST, vocab_size=360)


def run_of(config, vocabulary, params, **search):
    experiment = Experiment(model=config, search=SearchConfig(**search))
    return LoadedModel(experiment, vocabulary, Transformer(config), params, make_mesh(), (0,))


def as_run(imported):
    config = imported.experiment.model
    trained = run_of(config, imported.vocabulary, imported.params)
    return replace(trained, experiment=imported.experiment)


OPTIONS = {
    "plain": {},
    "search": dict(
        generation=dict(early_stopping="never", length_penalty=0.7, renormalize_logits=True,
                        forced_eos_token_id=0, bad_words_ids=[[1]], min_length=2)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_importing_an_exported_model_is_lossless(name, tmp_path):
    ids = save_folder(tmp_path / "huggingface", **OPTIONS[name])
    added = {
        ids[">>fr<<"]: {"content": ">>fr<<"},
        ids[">>de<<"]: {"content": ">>de<<", "special": True},
    }
    change(tmp_path / "huggingface" / "tokenizer_config.json", added_tokens_decoder=added)
    first, notes = read_marian(tmp_path / "huggingface"), []
    export_hf_marian.write_marian(as_run(first), tmp_path / "exported", notes.append)
    reimported = read_marian(tmp_path / "exported")
    assert reimported.experiment == first.experiment and not notes
    assert reimported.vocabulary.digest() == first.vocabulary.digest()
    for expected, actual in zip(leaves(first.params), leaves(reimported.params), strict=True):
        np.testing.assert_array_equal(expected, actual)


HEED_MODELS = {
    "paper": {},
    "halves": dict(positions="sinusoidal_concat", activation="silu", attention_bias=True),
    "untied": dict(tying="none", target_vocab_size=340, output_bias=True, mlp_bias=False),
    "scanned": dict(scan_layers=True, tying="decoder", activation="gelu", scale_embedding=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEED_MODELS)
def test_an_exported_heed_model_has_the_same_logits(name, tmp_path):
    """Except for PAD; the exported model is read by the import, which tests/oracle verifies."""
    config = replace(CONFIG, norm_epsilon=1e-5, **HEED_MODELS[name])
    english, german = lines(200)
    tokenizer = Tokenizer.train(english + german, config.vocab_size)
    sides = tokenizer, tokenizer if config.target_vocab == 360 else Tokenizer.train(german, 340)
    params, notes = parameters(config, 2.0), []
    trained = run_of(config, Vocabulary(*sides), params, penalty="average", max_length=30)
    export_hf_marian.write_marian(trained, tmp_path / "exported", notes.append)
    imported = read_marian(tmp_path / "exported")
    assert not notes and imported.vocabulary.shared == (sides[0] is sides[1])
    results = []
    for model, weights, vocabulary in (
        (trained.model, params, trained.vocabulary),
        (Transformer(imported.experiment.model), imported.params, imported.vocabulary),
    ):
        src, tgt = (side.encode([english[0]])[0] for side in vocabulary)
        ids = jnp.asarray([[*src, EOS]], jnp.int32), jnp.asarray([[BOS, *tgt]], jnp.int32)
        results.append((ids, jax.jit(model.apply)({"params": weights}, *ids)))
    (ids, logits), (imported_ids, imported_logits) = results
    np.testing.assert_array_equal(ids[0], imported_ids[0])
    np.testing.assert_array_equal(ids[1], imported_ids[1])
    np.testing.assert_allclose(logits[..., BOS:], imported_logits[..., BOS:], atol=1e-3, rtol=0)


UNSUPPORTED = {
    "norm=pre": dict(norm="pre"),
    "norm_kind=rms": dict(norm_kind="rms"),
    "embedding_norm=True": dict(embedding_norm=True),
    "positions=rotary": dict(positions="rotary"),
    "positions=t5_bias": dict(positions="t5_bias"),
    "activation=swiglu": dict(activation="swiglu"),
    "positions=sinusoidal_tensor2tensor": dict(positions="sinusoidal_tensor2tensor"),
    "position_offset=2": dict(position_offset=2),
    "decoder_mixer=ssru": dict(decoder_mixer="ssru"),
    "num_kv_heads=1": dict(num_kv_heads=1),
    "d_k=4": dict(d_k=4),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_settings_that_marian_lacks_are_rejected_by_name(name):
    with pytest.raises(ConfigError, match=f"model.{name} has no counterpart in Hugging Face's"):
        export_hf_marian.check(replace(CONFIG, **UNSUPPORTED[name]))


def test_inexact_exports_are_reported(tmp_path):
    vocabulary = Vocabulary(*[Tokenizer.train(lines(100)[0], 360)] * 2)
    notes = []
    export_hf_marian.write_marian(
        run_of(CONFIG, vocabulary, parameters(CONFIG)), tmp_path / "out", notes.append
    )
    text = " ".join(notes)
    for part in "model.norm_epsilon=1e-06", "search.penalty=gnmt", "511 tokens":
        assert part in text


def test_safetensors_have_every_parameter_and_its_axes(tmp_path):
    vocabulary = Vocabulary(*[Tokenizer.train(lines(100)[0], 360)] * 2)
    trained = run_of(CONFIG, vocabulary, parameters(CONFIG))
    export_safetensors.write_tensors(trained, tmp_path / "out")
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    table = json.loads((tmp_path / "out" / "names.json").read_text())
    assert table.keys() == tensors.keys()
    assert table["encoder_0.attention.query"]["axes"] == ["embed", "heads", "head_dim"]
    for name, x in tensors.items():
        leaf = trained.params
        for key in name.split("."):
            leaf = leaf[key]
        np.testing.assert_array_equal(x, leaf)
        assert table[name]["shape"] == list(x.shape)
    assert Vocabulary.load(tmp_path / "out").digest() == vocabulary.digest()


PROGRAM = """
import json, sys
from pathlib import Path
import jax, jax.export, numpy
arrays = numpy.load("weights.npz")
weights = [arrays[str(i)] for i in range(len(arrays))]
for name, shapes in ("greedy", [(1, 9), (5, 7)]), ("beam", [(5, 7)]):
    program = jax.export.deserialize(Path(f"{name}.stablehlo").read_bytes())
    for rows, length in shapes:
        src = numpy.load("src.npy")[:rows, :length]
        found = program.call(weights, src, numpy.full(rows, 12, numpy.int32))
        numpy.savez(f"{name}{rows}.npz", *found)
assert not {"data", "model", "decode", "experiments", "flax"} & set(sys.modules)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [dict(positions="t5_bias"), dict(decoder_mixer="ssru", position_offset=2)],
    ids=str,
)
def test_exported_stablehlo_searches_need_only_jax(changes, tmp_path):
    vocabulary = Vocabulary(*[Tokenizer.train(lines(100)[0], 360)] * 2)
    config = replace(CONFIG, decoder_layers=1, **changes)
    trained = run_of(config, vocabulary, parameters(config), beam_size=3, max_length=12)
    export_stablehlo.write_programs(trained, tmp_path)
    src = np.random.default_rng(0).integers(4, 360, (5, 9)).astype(np.int32)
    src[:, 6], src[:, 7:] = EOS, 0
    src[2, 3], src[2, 4:] = EOS, 0
    np.save(tmp_path / "src.npy", src)
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment() | {"PYTHONPATH": ""},
        capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    weights = pack(config, trained.params)
    for name, arguments in ("greedy", dict(method="greedy")), ("beam", dict(beam_size=3)):
        options, limits = SearchOptions(max_length=12, **arguments), jnp.full(5, 12, jnp.int32)
        arguments = dict(options=options, max_length=12)
        run_search = jax.jit(
            lambda weights, batch, arguments=arguments: search(
                [make_generator(config)], [weights], batch, **arguments
            )
        )
        expected = run_search(weights, search_batch(jnp.asarray(src), limits))
        for rows in (1, 5) if name == "greedy" else (5,):
            tokens, scores, lengths = np.load(tmp_path / f"{name}{rows}.npz").values()
            np.testing.assert_array_equal(tokens, expected.tokens[:rows])
            np.testing.assert_array_equal(lengths, expected.lengths[:rows])
            np.testing.assert_allclose(scores, expected.scores[:rows], rtol=1e-4)


def test_the_command_only_writes_a_new_folder(run, tmp_path):
    workdir, out = f"--workdir={run[0]}", f"--output={tmp_path}/out"
    assert "model.norm=pre has no counterpart" in error_line(
        "export_model", workdir, "--to=huggingface", out
    )
    assert not (tmp_path / "out").exists()
    code, _, err = heed("export_model", workdir, "--to=safetensors", out)
    assert code == 0 and (tmp_path / "out" / "names.json").exists(), err
    assert "is not empty" in error_line("export_model", workdir, "--to=safetensors", out)
