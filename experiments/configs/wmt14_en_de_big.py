"""WMT 2014 English-German, the paper's big model (section 5, table 2).

    python -m experiments.train --config=experiments/configs/wmt14_en_de_big.py --workdir=DIR

Hardware in the paper: 8 P100 GPUs, 3.5 days, BLEU 28.4 (newstest2014, tokenized). Not run by us.
"""

from experiments.configs import wmt14_en_de_base


def get_config():
    """Twice as wide, three times the dropout, three times the steps."""
    config = wmt14_en_de_base.get_config()
    config.model.update(d_model=1024, d_ff=4096, num_heads=16, dropout=0.3)
    config.train.num_steps = 300_000
    return config
