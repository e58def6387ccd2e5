"""A size in config.json that stored weights cannot have is one line, before anything is built."""

import json
import shutil

import pytest

from data.corpus import DataError
from experiments.workdir import load

SIZES = {
    "d_model": 10**9,
    "encoder_layers": 10**6,
    "d_ff": 10**12,
    "vocab_size": 10**10,
    "num_heads": 10**9,
    "lora.rank": 10**9,
}


@pytest.mark.parametrize("name", SIZES)
def test_a_size_that_the_weights_cannot_have(name, run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "run")
    file = folder / "config.json"
    found = json.loads(file.read_text())
    group, _, field = name.rpartition(".")
    found["experiment"][group or "model"][field] = SIZES[name]
    if name == "num_heads":
        found["experiment"]["model"] |= dict(d_k=4, d_v=4)
    if group:
        shutil.copytree(folder / "checkpoints" / "15", folder / "base" / "0")
    file.write_text(json.dumps(found))
    with pytest.raises(DataError, match=f"config.json: .*{name}={SIZES[name]}") as told:
        load(folder, "last")
    assert "\n" not in str(told.value)
