"""WMT 2014 English-German, the paper's base model (section 5, table 2).

    python -m experiments.train --config=experiments/configs/wmt14_en_de_base.py --workdir=DIR

Hardware in the paper: 8 P100 GPUs, 12 hours, BLEU 27.3 (newstest2014, tokenized). Not run by us.
"""

from experiments.config_io import default_config


def get_config():
    """The defaults are the paper's; only the data is set."""
    config = default_config()
    config.data.update(kind="wmt14_translate/de-en", vocab_size=37_000)
    return config
