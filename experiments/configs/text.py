"""Your own parallel text: two files per split, aligned line by line.

    python -m experiments.train --config=experiments/configs/text.py --workdir=runs/mine \\
        --config.data.path=DIR --config.data.source_language=en --config.data.target_language=de

DIR holds train.en, train.de, valid.en, valid.de, test.en, test.de (or .gz).
"""

from experiments.config_io import default_config


def get_config():
    """The paper's base model with pre-norm, which needs no tuning of the warm-up."""
    config = default_config()
    config.model.update(norm="pre")
    config.data.update(kind="text", vocab_size=16000, tokens_per_batch=8000)
    config.optimizer.update(schedule="inverse_sqrt", learning_rate=7e-4, clip_norm=1.0)
    return config
