"""A row of the paper's Table 3: variations on the base model, English-German.

    python -m experiments.train --config=experiments/configs/table3.py:B1 --workdir=DIR

Rows: base, A1 to A4, B1, B2, C1 to C7, D1 to D4, E, big. The paper's scores are on newstest2013
after 100,000 steps (big: 300,000). Not run by us.
"""

from dataclasses import asdict

from experiments.configs import wmt14_en_de_base
from experiments.did_you_mean import did_you_mean
from model import TABLE3, ConfigError
from model.config import LABEL_SMOOTHING


def get_config(row: str = "base"):
    """The base experiment with the row's model, and its label smoothing if that varies."""
    if row not in TABLE3:
        raise ConfigError(f"Table 3 has no row {row!r}{did_you_mean(row, TABLE3)}")
    config = wmt14_en_de_base.get_config()
    values = {name: value for name, value in asdict(TABLE3[row]).items() if value is not None}
    config.model.update(values)
    config.train.label_smoothing = LABEL_SMOOTHING.get(row, 0.1)
    config.train.num_steps = 300_000 if row == "big" else 100_000
    return config
