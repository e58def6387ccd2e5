"""Imported Marian models: same states, logits and outputs as in transformers."""

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
from tests.decode.tiny_model import search_batch
from tests.experiments.marian_folders import CODES, lines, save_vocabulary, table, train_spm, words
from tests.experiments.pickles import Program
from tests.oracle import folders

pytestmark = pytest.mark.filterwarnings("ignore")  # from transformers

SIZE, COUNT = 90, 200
EOS_BIAS = dict(scale=0.5, eos_bias=1.2)  # outputs end at various lengths
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
    """A folder with a vocabulary of SIZE words and no model."""
    folder = tmp_path_factory.mktemp("vocabulary")
    english, german = lines(100)
    models = train_spm(english, 70, "bpe"), train_spm(german, 70, "bpe")
    pieces = words(*models)[: SIZE - len(CODES) - 3]
    save_vocabulary(folder, *models, table(pieces))
    return folder


def make_models(folder, vocabulary, **changes):
    """The Hugging Face model and the imported one."""
    for file in vocabulary.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    reference = folders.save_model(folder, SIZE, **changes)
    return reference, read_marian(folder)


# Id maps of the small vocabulary: Hugging Face to Heed, and Heed to Hugging Face.
TO_HEED = np.array([EOS, UNK, *range(UNK + 1, SIZE + 1), BOS])
TO_HF = np.array([-1, SIZE - 1, 0, 1, *range(2, SIZE - 1)])


def both_inputs(rows):
    """Sources as Hugging Face's and Heed's inputs."""
    length = max(map(len, rows)) + 1
    heed_ids = pad_rows([[*TO_HEED[row], EOS] for row in rows], len(rows), length)
    hf_ids = torch.from_numpy(np.where(heed_ids == PAD, SIZE - 1, TO_HF[heed_ids]))
    return dict(input_ids=hf_ids, attention_mask=torch.from_numpy(heed_ids != PAD).long()), heed_ids


@pytest.mark.parametrize("name", MODELS)
def test_states_and_logits_are_equal(name, vocabulary, tmp_path):
    reference, imported = make_models(tmp_path, vocabulary, **MODELS[name])
    model = Transformer(imported.experiment.model)
    inputs, src = both_inputs(folders.random_ids(8, SIZE))
    tgt = np.concatenate([np.full((8, 1), BOS), both_inputs(folders.random_ids(8, SIZE, 1))[1]], 1)
    tgt[tgt == PAD] = UNK
    variables, src = {"params": imported.params}, jnp.asarray(src)
    memory = model.apply(variables, src, method="encode")
    logits = model.apply(variables, src, jnp.asarray(tgt, jnp.int32))
    with torch.no_grad():
        output = reference(**inputs, decoder_input_ids=torch.from_numpy(TO_HF[tgt]))
    src_mask = np.asarray(src) != PAD
    states = output.encoder_last_hidden_state.numpy()
    np.testing.assert_allclose(memory[src_mask], states[src_mask], atol=1e-4, rtol=0)
    np.testing.assert_allclose(logits[..., BOS:], output.logits[..., TO_HF[1:]], atol=1e-4, rtol=0)
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
    """With the imported search settings, 200 sentences."""
    reference, imported = make_models(
        tmp_path, vocabulary, **EOS_BIAS, seed=seed, generation=SEARCHES[name], **MODELS[model]
    )
    config, settings = imported.experiment.model, imported.experiment.search
    options = SearchOptions(**vars(settings))
    inputs, src = both_inputs(folders.random_ids(COUNT, SIZE, seed=2))
    limit = settings.max_length
    result = jax.jit(
        lambda params, src: search(
            [make_generator(config)],
            [pack(config, params)],
            search_batch(src, limit),
            options=options,
            max_length=limit,
        )
    )(imported.params, jnp.asarray(src))
    with torch.no_grad():
        output = reference.generate(**inputs).numpy()[:, 1:]
    tokens, lengths = np.asarray(result.tokens[:, 0]), np.asarray(result.lengths[:, 0])
    for row, length, expected in zip(tokens, lengths, output, strict=True):
        assert TO_HF[row[:length]].tolist() == expected[:length].tolist()
        assert set(expected[length:]) <= {SIZE - 1}
    assert len(set(lengths.tolist())) >= 3


def test_vocabularies_of_two_sizes_have_equal_logits(tmp_path):
    english, german = lines(100)
    models, marks = (train_spm(english, 70, "bpe"), train_spm(german, 90, "bpe")), ("</s>", "<unk>")
    tables = [
        {word: id for id, word in enumerate([*marks, "<pad>", *words(model)])} for model in models
    ]
    save_vocabulary(tmp_path, *models, *tables)
    sizes = [len(table) for table in tables]
    reference = folders.save_model(
        tmp_path, *sizes, pad=2, share_encoder_decoder_embeddings=False, tie_word_embeddings=True
    )
    imported = read_marian(tmp_path)
    assert not imported.vocabulary.shared and sizes[0] != sizes[1]
    (src,), (tgt,) = (side.encode([german[0]]) for side in imported.vocabulary)
    ids = jnp.asarray([[*src, EOS]], jnp.int32), jnp.asarray([[BOS, *tgt]], jnp.int32)
    logits = Transformer(imported.experiment.model).apply({"params": imported.params}, *ids)
    to_hf = np.array([-1, 2, 0, 1, *range(3, max(sizes))])
    with torch.no_grad():
        inputs = dict(zip(("input_ids", "decoder_input_ids"), ids, strict=True))
        expected = reference(**{k: torch.from_numpy(to_hf[x]) for k, x in inputs.items()}).logits
    expected = expected[..., to_hf[1 : sizes[1] + 1]]
    np.testing.assert_allclose(logits[..., BOS:], expected, atol=1e-4, rtol=0)


def test_pickled_tensors_equal_safetensors(vocabulary, tmp_path):
    reference, imported = make_models(tmp_path, vocabulary)
    (tmp_path / "model.safetensors").unlink()
    for archive in True, False:  # False: the format before 2020, of most OPUS-MT models
        file = tmp_path / "pytorch_model.bin"
        torch.save(reference.state_dict(), file, _use_new_zipfile_serialization=archive)
        reimported = read_marian(tmp_path)
        jax.tree.map(np.testing.assert_array_equal, reimported.params, imported.params)


def test_a_legacy_pickle_is_never_executed(vocabulary, tmp_path):
    make_models(tmp_path, vocabulary)
    (tmp_path / "model.safetensors").unlink()
    marker = tmp_path / "marker"
    content = {"model.shared.weight": Program(str(marker))}
    torch.save(content, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    message = r"more than tensors and settings \(\w+.open\).* is not opened"
    with pytest.raises(DataError, match=message):
        read_marian(tmp_path)
    assert not marker.exists()
