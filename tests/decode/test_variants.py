"""The variants of docs/variants.md: a row of a table is all that training and decoding need."""

import importlib
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from decode.weights import pack
from tests.decode.test_forward import PLAIN, made, plain_walk, sources, walk

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
def test_a_row_is_trained_and_decoded(module, row, monkeypatch):
    table, name = re.search(r'^([A-Z]+)\["(\w+)"\] = ', row, re.M).groups()
    namespace = vars(importlib.import_module(f"model.{module}")).copy()
    monkeypatch.setitem(namespace[table], name, None)  # so that it is removed afterwards
    exec(row, namespace)
    config = replace(PLAIN, **{SETTINGS[module]: name})
    params, src = made(config), sources()
    found, _ = walk(config, pack(config, params), src)
    expected = plain_walk(config, params, src)
    np.testing.assert_allclose(found[..., : config.target_vocab], expected, atol=5e-5, rtol=0)
    plain, _ = walk(PLAIN, pack(PLAIN, made(PLAIN)), src, steps=2)
    finite = np.isfinite(plain)
    assert np.abs(found[:2][finite] - plain[finite]).max() > 1e-3  # the row is in use
