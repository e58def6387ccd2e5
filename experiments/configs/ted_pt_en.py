"""TED talks, Portuguese to English (TFDS ted_hrlr_translate/pt_to_en): 51,785 pairs.

    python -m experiments.train --config=experiments/configs/ted_pt_en.py --workdir=runs/ted

Hardware: one GPU, or a day of CPU. Time: about an hour on a GPU (not measured by us).
"""

from experiments.config_io import default_config


def get_config():
    """4 layers of 256 units, for small data."""
    config = default_config()
    config.model.update(encoder_layers=4, decoder_layers=4, d_model=256, d_ff=1024, dropout=0.2)
    config.data.update(kind="ted_hrlr_translate/pt_to_en", vocab_size=8000)
    config.data.update(source_language="pt", target_language="en", tokens_per_batch=8000)
    config.optimizer.update(schedule="inverse_sqrt", learning_rate=1e-3, warmup_steps=2000)
    config.train.num_steps = 40_000
    return config
