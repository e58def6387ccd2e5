"""WMT 2014 English-French, the paper's big model (section 5, table 2).

    python -m experiments.train --config=experiments/configs/wmt14_en_fr_big.py --workdir=DIR

Hardware in the paper: 8 P100 GPUs, 3.5 days, BLEU 41.8 (newstest2014, tokenized). Not run by us.
"""

from experiments.configs import wmt14_en_de_big


def get_config():
    """As for German, with French data, its vocabulary and less dropout (section 6.1)."""
    config = wmt14_en_de_big.get_config()
    config.model.dropout = 0.1
    config.data.update(kind="wmt14_translate/fr-en", target_language="fr", vocab_size=32_000)
    return config
