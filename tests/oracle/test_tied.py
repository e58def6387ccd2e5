"""A table that is tied may be stored under any of its names, as safetensors' save_model does."""

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_model

from data.errors import DataError
from interop.registry import read_folder
from tests.experiments.marian_folders import CODES, learn, lines, table, words
from tests.experiments.marian_folders import save_vocabulary as save_marian_vocabulary
from tests.experiments.t5_folders import save_vocabulary
from tests.oracle import folders

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own

SIZE = 128
T5 = "shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head"
MARIAN = "model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"
CASES = [
    ("t5", T5, {}),
    ("t5", T5, dict(tie_word_embeddings=False)),  # of their T5 it scales outputs, and unties none
    ("marian", MARIAN, {}),
    ("marian", MARIAN[2:], dict(share_encoder_decoder_embeddings=False)),
]


def made(folder, kind, **changes):
    """Their model and its folder, which has all names of its tables."""
    if kind == "t5":
        save_vocabulary(folder)
        return folders.save_t5(folder, SIZE, **changes)
    models = [learn(side, 70, "bpe") for side in lines(100)]
    pieces = words(*models)[: 90 - len(CODES) - 3]
    save_marian_vocabulary(folder, *models, table(pieces))
    return folders.save_model(folder, 90, **changes)


def logits(model):
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        return model(input_ids=ids, decoder_input_ids=ids).logits.numpy()


@pytest.mark.parametrize(("kind", "names", "changes"), CASES)
def test_each_name_alone_is_the_same_model(kind, names, changes, tmp_path):
    theirs = made(tmp_path, kind, **changes)
    imported, file = read_folder(tmp_path), tmp_path / "model.safetensors"
    tensors = load_file(file)
    tied = [f"{name}.weight" for name in names]
    whole = next(tensors[name] for name in tied if name in tensors)
    rest = {name: x for name, x in tensors.items() if name not in tied}
    for name in tied:
        save_file(rest | {name: whole}, file, {"format": "pt"})
        there = type(theirs).from_pretrained(tmp_path).eval()
        np.testing.assert_array_equal(logits(there), logits(theirs))
        found = read_folder(tmp_path)
        assert found.experiment == imported.experiment
        jax.tree.map(np.testing.assert_array_equal, found.params, imported.params)
    save_model(theirs, str(file), {"format": "pt"})
    assert len(load_file(file).keys() & set(tied)) == 1
    jax.tree.map(np.testing.assert_array_equal, read_folder(tmp_path).params, imported.params)
    save_file(rest, file, {"format": "pt"})
    with pytest.raises(DataError, match="lacks .*weight, which by config.json it would have"):
        read_folder(tmp_path)


def test_a_name_stands_for_no_table_that_is_not_tied(tmp_path):
    made(tmp_path, "marian", tie_word_embeddings=False)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    for name in MARIAN[:3]:
        tensors.pop(f"{name}.weight", None)
    save_file(tensors, file)
    with pytest.raises(DataError, match="lacks model.encoder.embed_tokens.weight"):
        read_folder(tmp_path)
