"""Tied embedding tables may be stored under any of their names, as save_model does."""

import jax
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_model

from data.errors import DataError
from interop.registry import read_folder
from tests.experiments.marian_folders import CODES, lines, table, train_spm, words
from tests.experiments.marian_folders import save_vocabulary as save_marian_vocabulary
from tests.experiments.t5_folders import save_vocabulary
from tests.oracle import folders

pytestmark = pytest.mark.filterwarnings("ignore")  # from transformers

SIZE = 128
T5 = "shared", "encoder.embed_tokens", "decoder.embed_tokens", "lm_head"
MARIAN = "model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"
CASES = [
    ("t5", T5, {}),
    ("t5", T5, dict(tie_word_embeddings=False)),  # scales outputs, but unties nothing
    ("marian", MARIAN, {}),
    ("marian", MARIAN[2:], dict(share_encoder_decoder_embeddings=False)),
]


def make_model(folder, kind, **changes):
    """Saves a Hugging Face model whose file has all names of its tables."""
    if kind == "t5":
        save_vocabulary(folder)
        return folders.save_t5(folder, SIZE, **changes)
    models = [train_spm(side, 70, "bpe") for side in lines(100)]
    pieces = words(*models)[: 90 - len(CODES) - 3]
    save_marian_vocabulary(folder, *models, table(pieces))
    return folders.save_model(folder, 90, **changes)


def logits(model):
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        return model(input_ids=ids, decoder_input_ids=ids).logits.numpy()


@pytest.mark.parametrize(("kind", "names", "changes"), CASES)
def test_a_tied_table_is_found_under_any_name(kind, names, changes, tmp_path):
    reference = make_model(tmp_path, kind, **changes)
    imported, file = read_folder(tmp_path), tmp_path / "model.safetensors"
    tensors = load_file(file)
    tied = [f"{name}.weight" for name in names]
    tied_table = next(tensors[name] for name in tied if name in tensors)
    other_tensors = {name: x for name, x in tensors.items() if name not in tied}
    for name in tied:
        save_file(other_tensors | {name: tied_table}, file, {"format": "pt"})
        reloaded = type(reference).from_pretrained(tmp_path).eval()
        np.testing.assert_array_equal(logits(reloaded), logits(reference))
        reimported = read_folder(tmp_path)
        assert reimported.experiment == imported.experiment
        jax.tree.map(np.testing.assert_array_equal, reimported.params, imported.params)
    save_model(reference, str(file), {"format": "pt"})
    assert len(load_file(file).keys() & set(tied)) == 1
    jax.tree.map(np.testing.assert_array_equal, read_folder(tmp_path).params, imported.params)
    save_file(other_tensors, file, {"format": "pt"})
    with pytest.raises(DataError, match="lacks .*weight, required by config.json"):
        read_folder(tmp_path)


def test_an_untied_table_is_not_found_under_another_name(tmp_path):
    make_model(tmp_path, "marian", tie_word_embeddings=False)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    for name in MARIAN[:3]:
        tensors.pop(f"{name}.weight", None)
    save_file(tensors, file)
    with pytest.raises(DataError, match="lacks model.encoder.embed_tokens.weight"):
        read_folder(tmp_path)
