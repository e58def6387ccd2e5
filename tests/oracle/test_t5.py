"""Imported T5 models: same states, logits, outputs and ids as in transformers."""

import json
import unicodedata

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import T5Tokenizer

from data.batch import BOS, EOS, PAD, UNK, pad_rows
from decode.families import make_generator
from decode.options import SearchOptions
from decode.search import search
from decode.weights import pack
from interop.registry import read_folder
from interop.t5_vocabulary import read_vocabulary
from model import Transformer
from tests.decode.tiny_model import search_batch
from tests.experiments.t5_folders import save_vocabulary
from tests.oracle import folders
from tests.oracle.test_marian_tokenizer import mixed_lines

pytestmark = pytest.mark.filterwarnings("ignore")  # from transformers

SIZE = 128
FEW_BUCKETS = dict(relative_attention_num_buckets=8, relative_attention_max_distance=20)
MODELS = {
    "t5": FEW_BUCKETS,
    "t5_1.1": dict(feed_forward_proj="gated-gelu", untied=True, tie_word_embeddings=False),
    "tied_unscaled": dict(feed_forward_proj="gated-silu", tie_word_embeddings=False, **FEW_BUCKETS),
    "mt5": dict(kind="mt5", untied=True, num_heads=6, d_kv=8, num_layers=1),
}
SEARCHES = {"greedy": dict(num_beams=1), "beam": dict(num_beams=6, length_penalty=0.8)}
# As in Heed: padding is never generated, and outputs at the limit end with EOS.
GENERATION = dict(bad_words_ids=[[0]], forced_eos_token_id=1)


def make_models(folder, **changes):
    """The Hugging Face model and the imported one."""
    save_vocabulary(folder)
    reference = folders.save_t5(folder, SIZE, **changes)
    return reference, read_folder(folder)


def both_inputs(rows):
    """Sources as Hugging Face's and Heed's inputs; Heed's ids are larger by 1."""
    heed_ids = pad_rows(
        [[*(np.array(row) + 1), EOS] for row in rows], len(rows), 1 + max(map(len, rows))
    )
    hf_ids = torch.from_numpy(np.maximum(heed_ids - 1, 0)).long()
    return dict(input_ids=hf_ids, attention_mask=torch.from_numpy(heed_ids != PAD).long()), heed_ids


def sources(count, seed=0, max_length=12):
    return folders.random_ids(count, SIZE, seed, max_length)


@pytest.mark.parametrize("name", MODELS)
def test_states_and_logits_are_equal(name, tmp_path):
    reference, imported = make_models(tmp_path, **MODELS[name])
    untied = MODELS[name].get("untied")
    assert imported.experiment.model.tying == ("none" if untied else "all")
    model = Transformer(imported.experiment.model)
    inputs, src = both_inputs(sources(8, max_length=40))
    tgt = np.concatenate([np.full((8, 1), BOS), both_inputs(sources(8, 1, max_length=40))[1]], 1)
    tgt[tgt == PAD] = UNK
    variables, src = {"params": imported.params}, jnp.asarray(src)
    memory = jax.jit(model.apply, static_argnames="method")(variables, src, method="encode")
    logits = jax.jit(model.apply)(variables, src, jnp.asarray(tgt, jnp.int32))
    with torch.no_grad():
        output = reference(**inputs, decoder_input_ids=torch.from_numpy(tgt - 1).long())
    src_mask = np.asarray(src) != PAD
    states = output.encoder_last_hidden_state.numpy()
    np.testing.assert_allclose(memory[src_mask], states[src_mask], atol=1e-4, rtol=0)
    np.testing.assert_allclose(logits[..., BOS:], output.logits, atol=1e-4, rtol=0)
    assert float(jax.nn.softmax(logits)[..., PAD].max()) < 1e-30
    reimported = read_folder(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, reimported.params, imported.params)


@pytest.mark.parametrize(("model", "name"), [("t5", "greedy"), ("t5", "beam"), ("t5_1.1", "beam")])
def test_outputs_are_equal_token_for_token(model, name, tmp_path):
    """With the imported search settings, 200 sentences."""
    reference, imported = make_models(
        tmp_path, noise=0.5, generation=SEARCHES[name] | GENERATION, **MODELS[model]
    )
    config, settings = imported.experiment.model, imported.experiment.search
    inputs, src = both_inputs(sources(200, seed=2))
    limit = settings.max_length
    result = jax.jit(
        lambda params, src: search(
            [make_generator(config)], [pack(config, params)], search_batch(src, limit),
            options=SearchOptions(**vars(settings)), max_length=limit,
        )
    )(imported.params, jnp.asarray(src))  # fmt: skip
    with torch.no_grad():
        output = reference.generate(**inputs).numpy()[:, 1:]
    tokens, lengths = np.asarray(result.tokens[:, 0]), np.asarray(result.lengths[:, 0])
    for row, length, expected in zip(tokens, lengths, output, strict=True):
        assert (row[:length] - 1).tolist() == expected[:length].tolist()
        assert set(expected[length:]) <= {0, 1}  # Hugging Face pads beams with EOS
    assert len(set(lengths.tolist())) >= 3, lengths


def is_tokenized_differently(character):
    """Characters that Hugging Face tokenizes differently: combining marks and U+0085."""
    return character == "\x85" or unicodedata.category(character).startswith("M")


ADDED = {"<extra_id_3>": False, "<extra_id_4>": True}  # added tokens, and whether they are special
SETTINGS = [{}, {"extra_ids": 12, "clean_up_tokenization_spaces": True}, {"added": ADDED}]


@pytest.mark.parametrize("settings", SETTINGS)
def test_ids_and_texts_are_equal(settings, tmp_path):
    settings, sentinels = dict(settings), settings.get("extra_ids", 10)
    words = save_vocabulary(tmp_path, 1500)
    if added := settings.pop("added", {}):
        ids = {word: words + sentinels - 1 - int(word[10:-1]) for word in added}
        tokens = {ids[word]: dict(content=word, special=added[word]) for word in added}
        settings["added_tokens_decoder"] = tokens
    save_vocabulary(tmp_path, 1500, **settings)
    size = words + sentinels + 28
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="t5", vocab_size=size)))
    reference = T5Tokenizer.from_pretrained(tmp_path)
    side = read_vocabulary(tmp_path, size).target
    assert side.vocab_size == size + 1 and len(reference) == words + sentinels
    text = [line.replace(">>fr<<", "<extra_id_3>") for line in mixed_lines()]
    text = ["".join(c for c in line if not is_tokenized_differently(c)) for line in text]
    expected = reference(text).input_ids
    actual = [[id - 1 for id in [*ids, EOS]] for ids in side.encode(text)]
    differences = [line for line, a, b in zip(text, actual, expected, strict=True) if a != b]
    assert not differences, (len(differences), differences[:3])
    rng = np.random.default_rng(0)
    rows = [row[:-1] for row in expected[:2000]]
    rows += [rng.integers(0, size, 20).tolist() for _ in range(1000)]
    texts = reference.batch_decode(rows, skip_special_tokens=True)
    assert side.decode([[id + 1 for id in row] for row in rows]) == [
        line.strip().replace("\n", " ") for line in texts
    ]
