"""Imported Marian models: the same states, logits and outputs as in Hugging Face's transformers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from data.batch import BOS, EOS, PAD, UNK, pad_rows
from data.errors import DataError
from decode.families import make_generator
from decode.options import SearchOptions
from decode.search import search
from decode.weights import pack
from interop.hf_marian import read_marian
from model import Transformer
from tests.decode.tiny_model import asked
from tests.experiments.marian_folders import CODES, learn, lines, save_vocabulary, table, words
from tests.experiments.pickles import Program
from tests.oracle import folders

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

SIZE, COUNT = 90, 200
LATE = dict(scale=0.5, late=1.2)  # outputs end, at many lengths
MODELS = {
    "opus": {},
    "deep": dict(encoder_layers=3, decoder_layers=1, activation_function="relu", d_model=24),
    "heads": dict(encoder_attention_heads=2, decoder_attention_heads=2, scale_embedding=False),
    "wide": dict(encoder_ffn_dim=80, decoder_ffn_dim=80, activation_function="gelu"),
    "untied": dict(tie_word_embeddings=False),
    "apart": dict(share_encoder_decoder_embeddings=False),
    "apart_untied": dict(share_encoder_decoder_embeddings=False, tie_word_embeddings=False),
}
SEARCHES = {
    "beam": dict(early_stopping=False),
    "first": dict(early_stopping=True, length_penalty=0.6, renormalize_logits=True),
    "greedy": dict(num_beams=1, bad_words_ids=[[SIZE - 1], [1]]),
}


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    """A folder without a model: a vocabulary of SIZE words."""
    folder = tmp_path_factory.mktemp("vocabulary")
    english, german = lines(100)
    models = learn(english, 70, "bpe"), learn(german, 70, "bpe")
    pieces = words(*models)[: SIZE - len(CODES) - 3]
    save_vocabulary(folder, *models, table(pieces))
    return folder


def made(folder, vocabulary, **changes):
    """Their model, and what it was imported as."""
    for file in vocabulary.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    theirs = folders.save_model(folder, SIZE, **changes)
    return theirs, read_marian(folder)


# Their ids of the small vocabulary, and ours.
HERE = np.array([EOS, UNK, *range(UNK + 1, SIZE + 1), BOS])
THERE = np.array([-1, SIZE - 1, 0, 1, *range(2, SIZE - 1)])


def both_sides(rows):
    """Sources as their arrays and ours."""
    length = max(map(len, rows)) + 1
    ours = pad_rows([[*HERE[row], EOS] for row in rows], len(rows), length)
    theirs = torch.from_numpy(np.where(ours == PAD, SIZE - 1, THERE[ours]))
    return dict(input_ids=theirs, attention_mask=torch.from_numpy(ours != PAD).long()), ours


@pytest.mark.parametrize("name", MODELS)
def test_states_and_logits_are_equal(name, vocabulary, tmp_path):
    theirs, imported = made(tmp_path, vocabulary, **MODELS[name])
    model = Transformer(imported.experiment.model)
    inputs, src = both_sides(folders.random_ids(8, SIZE))
    tgt = np.concatenate([np.full((8, 1), BOS), both_sides(folders.random_ids(8, SIZE, 1))[1]], 1)
    tgt[tgt == PAD] = UNK
    variables, src = {"params": imported.params}, jnp.asarray(src)
    memory = model.apply(variables, src, method="encode")
    logits = model.apply(variables, src, jnp.asarray(tgt, jnp.int32))
    with torch.no_grad():
        found = theirs(**inputs, decoder_input_ids=torch.from_numpy(THERE[tgt]))
    read = np.asarray(src) != PAD
    states = found.encoder_last_hidden_state.numpy()
    np.testing.assert_allclose(memory[read], states[read], atol=1e-4, rtol=0)
    np.testing.assert_allclose(logits[..., BOS:], found.logits[..., THERE[1:]], atol=1e-4, rtol=0)
    assert float(np.exp(np.asarray(logits))[..., PAD].max()) < 1e-30


@pytest.mark.parametrize(
    ("model", "name", "seed"),
    [
        ("opus", "beam", 0),
        ("opus", "first", 0),
        ("opus", "greedy", 0),
        ("untied", "first", 0),
        ("apart", "beam", 2),
    ],
)
def test_outputs_are_equal_token_for_token(model, name, seed, vocabulary, tmp_path):
    """By the search settings that the import found, 200 sentences."""
    theirs, imported = made(
        tmp_path, vocabulary, **LATE, seed=seed, generation=SEARCHES[name], **MODELS[model]
    )
    config, settings = imported.experiment.model, imported.experiment.search
    options = SearchOptions(**vars(settings))
    inputs, src = both_sides(folders.random_ids(COUNT, SIZE, seed=2))
    limit = settings.max_length
    found = jax.jit(
        lambda params, src: search(
            [make_generator(config)],
            [pack(config, params)],
            asked(src, limit),
            options=options,
            max_length=limit,
        )
    )(imported.params, jnp.asarray(src))
    with torch.no_grad():
        output = theirs.generate(**inputs).numpy()[:, 1:]
    tokens, lengths = np.asarray(found.tokens[:, 0]), np.asarray(found.lengths[:, 0])
    for row, length, other in zip(tokens, lengths, output, strict=True):
        assert THERE[row[:length]].tolist() == other[:length].tolist()
        assert set(other[length:]) <= {SIZE - 1}
    assert len(set(lengths.tolist())) >= 3


def test_vocabularies_of_two_sizes_have_equal_logits(tmp_path):
    english, german = lines(100)
    models, marks = (learn(english, 70, "bpe"), learn(german, 90, "bpe")), ("</s>", "<unk>")
    tables = [
        {word: id for id, word in enumerate([*marks, "<pad>", *words(model)])} for model in models
    ]
    save_vocabulary(tmp_path, *models, *tables)
    sizes = [len(table) for table in tables]
    theirs = folders.save_model(
        tmp_path, *sizes, pad=2, share_encoder_decoder_embeddings=False, tie_word_embeddings=True
    )
    found = read_marian(tmp_path)
    assert not found.vocabulary.shared and sizes[0] != sizes[1]
    (src,), (tgt,) = (side.encode([german[0]]) for side in found.vocabulary)
    ids = jnp.asarray([[*src, EOS]], jnp.int32), jnp.asarray([[BOS, *tgt]], jnp.int32)
    logits = Transformer(found.experiment.model).apply({"params": found.params}, *ids)
    there = np.array([-1, 2, 0, 1, *range(3, max(sizes))])
    with torch.no_grad():
        inputs = dict(zip(("input_ids", "decoder_input_ids"), ids, strict=True))
        expected = theirs(**{k: torch.from_numpy(there[x]) for k, x in inputs.items()}).logits
    expected = expected[..., there[1 : sizes[1] + 1]]
    np.testing.assert_allclose(logits[..., BOS:], expected, atol=1e-4, rtol=0)


def test_a_pickle_of_tensors_is_what_safetensors_are(vocabulary, tmp_path):
    theirs, imported = made(tmp_path, vocabulary)
    (tmp_path / "model.safetensors").unlink()
    for archive in True, False:  # False: as before 2020, when most of OPUS-MT was made
        file = tmp_path / "pytorch_model.bin"
        torch.save(theirs.state_dict(), file, _use_new_zipfile_serialization=archive)
        again = read_marian(tmp_path)
        jax.tree.map(np.testing.assert_array_equal, again.params, imported.params)


def test_an_old_pickle_is_never_run(vocabulary, tmp_path):
    made(tmp_path, vocabulary)
    (tmp_path / "model.safetensors").unlink()
    witness = tmp_path / "witness"
    content = {"model.shared.weight": Program(str(witness))}
    torch.save(content, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    message = r"more than tensors and settings \(\w+.open\).* is not opened"
    with pytest.raises(DataError, match=message):
        read_marian(tmp_path)
    assert not witness.exists()
