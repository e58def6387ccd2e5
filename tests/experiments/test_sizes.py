"""Sizes in config.json that do not fit the stored weights are one-line errors."""

import json
import shutil
from dataclasses import replace

import pytest

from data.errors import DataError
from experiments.config import LoraConfig
from experiments.sizes import check_stored_sizes
from experiments.workdir import load, read_config
from model import ConfigError

SIZES = {
    "d_model": 10**9,
    "encoder_layers": 10**6,
    "d_ff": 10**12,
    "vocab_size": 10**10,
    "num_heads": 10**9,
}


@pytest.mark.parametrize("name", SIZES)
def test_a_model_size_that_exceeds_the_weights_is_rejected(name, run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "run")
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config["experiment"]["model"][name] = SIZES[name]
    if name == "num_heads":
        config["experiment"]["model"] |= dict(d_k=4, d_v=4)
    file.write_text(json.dumps(config))
    errors = DataError, ConfigError  # the latter for a size that no model has
    with pytest.raises(errors, match=f"config.json: .*{name}={SIZES[name]}") as error:
        load(folder, "last")
    assert "\n" not in str(error.value)


def test_a_lora_rank_that_exceeds_the_weights_is_rejected(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "run")
    shutil.copytree(folder / "checkpoints" / "30", folder / "base" / "0")
    experiment = replace(read_config(folder), lora=LoraConfig(rank=10**9), init_from="other")
    with pytest.raises(DataError, match="config.json: lora.rank=1000000000 would need more"):
        check_stored_sizes(folder, experiment, 30)
