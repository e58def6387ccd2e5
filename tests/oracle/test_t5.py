"""Imported T5 models: the same states, logits, outputs and ids as in Hugging Face's library."""

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
from tests.decode.tiny_model import asked
from tests.experiments.t5_folders import save_vocabulary
from tests.oracle import folders
from tests.oracle.test_marian_tokenizer import mixed_lines

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

SIZE = 128
FEW = dict(relative_attention_num_buckets=8, relative_attention_max_distance=20)
MODELS = {
    "t5": FEW,
    "t5_1.1": dict(feed_forward_proj="gated-gelu", untied=True, tie_word_embeddings=False),
    "tied_unscaled": dict(feed_forward_proj="gated-silu", tie_word_embeddings=False, **FEW),
    "mt5": dict(kind="mt5", untied=True, num_heads=6, d_kv=8, num_layers=1),
}
SEARCHES = {"greedy": dict(num_beams=1), "beam": dict(num_beams=6, length_penalty=0.8)}
# The padding is never said here, and what reaches the limit ends there.
ENDING = dict(bad_words_ids=[[0]], forced_eos_token_id=1)


def made(folder, **changes):
    """Their model, and what it was imported as."""
    save_vocabulary(folder)
    theirs = folders.save_t5(folder, SIZE, **changes)
    return theirs, read_folder(folder)


def both_sides(rows):
    """Sources as their arrays and ours, whose ids are one more."""
    ours = pad_rows(
        [[*(np.array(row) + 1), EOS] for row in rows], len(rows), 1 + max(map(len, rows))
    )
    theirs = torch.from_numpy(np.maximum(ours - 1, 0)).long()
    return dict(input_ids=theirs, attention_mask=torch.from_numpy(ours != PAD).long()), ours


def sources(count, seed=0, longest=12):
    return folders.random_ids(count, SIZE, seed, longest)


@pytest.mark.parametrize("name", MODELS)
def test_states_and_logits_are_equal(name, tmp_path):
    theirs, imported = made(tmp_path, **MODELS[name])
    untied = MODELS[name].get("untied")
    assert imported.experiment.model.tying == ("none" if untied else "all")
    model = Transformer(imported.experiment.model)
    inputs, src = both_sides(sources(8, longest=40))
    tgt = np.concatenate([np.full((8, 1), BOS), both_sides(sources(8, 1, longest=40))[1]], 1)
    tgt[tgt == PAD] = UNK
    variables, src = {"params": imported.params}, jnp.asarray(src)
    memory = jax.jit(model.apply, static_argnames="method")(variables, src, method="encode")
    logits = jax.jit(model.apply)(variables, src, jnp.asarray(tgt, jnp.int32))
    with torch.no_grad():
        found = theirs(**inputs, decoder_input_ids=torch.from_numpy(tgt - 1).long())
    read = np.asarray(src) != PAD
    states = found.encoder_last_hidden_state.numpy()
    np.testing.assert_allclose(memory[read], states[read], atol=1e-4, rtol=0)
    np.testing.assert_allclose(logits[..., BOS:], found.logits, atol=1e-4, rtol=0)
    assert float(jax.nn.softmax(logits)[..., PAD].max()) < 1e-30
    again = read_folder(tmp_path)
    jax.tree.map(np.testing.assert_array_equal, again.params, imported.params)


@pytest.mark.parametrize(("model", "name"), [("t5", "greedy"), ("t5", "beam"), ("t5_1.1", "beam")])
def test_outputs_are_equal_token_for_token(model, name, tmp_path):
    """By the search settings that the import found, 200 sentences."""
    theirs, imported = made(
        tmp_path, noise=0.5, generation=SEARCHES[name] | ENDING, **MODELS[model]
    )
    config, settings = imported.experiment.model, imported.experiment.search
    inputs, src = both_sides(sources(200, seed=2))
    limit = settings.max_length
    found = jax.jit(
        lambda params, src: search(
            [make_generator(config)], [pack(config, params)], asked(src, limit),
            options=SearchOptions(**vars(settings)), max_length=limit,
        )
    )(imported.params, jnp.asarray(src))  # fmt: skip
    with torch.no_grad():
        output = theirs.generate(**inputs).numpy()[:, 1:]
    tokens, lengths = np.asarray(found.tokens[:, 0]), np.asarray(found.lengths[:, 0])
    for row, length, other in zip(tokens, lengths, output, strict=True):
        assert (row[:length] - 1).tolist() == other[:length].tolist()
        assert set(other[length:]) <= {0, 1}  # beams of theirs go on with ends
    assert len(set(lengths.tolist())) >= 3, lengths


def unlike(character):
    """What theirs reads otherwise: marks, which it loses beside what it replaces, and one space."""
    return character == "\x85" or unicodedata.category(character).startswith("M")


KEPT = {"<extra_id_3>": False, "<extra_id_4>": True}  # added words, and whether they are special
SETTINGS = [{}, {"extra_ids": 12, "clean_up_tokenization_spaces": True}, {"added": KEPT}]


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
    theirs = T5Tokenizer.from_pretrained(tmp_path)
    ours = read_vocabulary(tmp_path, size).target
    assert ours.vocab_size == size + 1 and len(theirs) == words + sentinels
    text = [line.replace(">>fr<<", "<extra_id_3>") for line in mixed_lines()]
    text = ["".join(c for c in line if not unlike(c)) for line in text]
    expected = theirs(text).input_ids
    found = [[id - 1 for id in [*ids, EOS]] for ids in ours.encode(text)]
    wrong = [line for line, a, b in zip(text, found, expected, strict=True) if a != b]
    assert not wrong, (len(wrong), wrong[:3])
    rng = np.random.default_rng(0)
    rows = [row[:-1] for row in expected[:2000]]
    rows += [rng.integers(0, size, 20).tolist() for _ in range(1000)]
    texts = theirs.batch_decode(rows, skip_special_tokens=True)
    assert ours.decode([[id + 1 for id in row] for row in rows]) == [
        line.strip().replace("\n", " ") for line in texts
    ]
