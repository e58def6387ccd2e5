"""The variants of docs/variants.md: one table row suffices for training and decoding."""

import importlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decode.weights import pack
from tests.decode.test_forward import PLAIN, random_params, random_walk, reference_walk, sources

PAGE = Path(__file__).parents[2] / "docs" / "variants.md"
ROWS = re.findall(r"```python\n# model/(\w+)\.py\n(.*?)```", PAGE.read_text(), re.S)
SETTINGS = {
    "activations": "activation",
    "norm": "norm_kind",
    "residual": "norm",
    "positions": "positions",
    "mixers": "decoder_mixer",
}


def test_every_table_has_an_example():
    assert sorted(module for module, _ in ROWS) == sorted(SETTINGS)


@pytest.mark.slow
@pytest.mark.parametrize(("module", "row"), ROWS, ids=[module for module, _ in ROWS])
def test_a_variant_decodes_like_the_training_model(module, row, monkeypatch):
    table, name = re.search(r'^([A-Z]+)\["(\w+)"\] = ', row, re.M).groups()
    namespace = vars(importlib.import_module(f"model.{module}")).copy()
    monkeypatch.setitem(namespace[table], name, None)  # removed afterwards
    exec(row, namespace)
    config = replace(PLAIN, **{SETTINGS[module]: name})
    params, src = random_params(config), sources()
    log_probs, _ = random_walk(config, pack(config, params), src)
    expected = reference_walk(config, params, src)
    np.testing.assert_allclose(log_probs[..., : config.target_vocab], expected, atol=5e-5, rtol=0)
    default, _ = random_walk(PLAIN, pack(PLAIN, random_params(PLAIN)), src, steps=2)
    finite = np.isfinite(default)
    assert np.abs(log_probs[:2][finite] - default[finite]).max() > 1e-3  # the variant has an effect
