"""Software en-de: manuals, help and interface texts of free software, 479,000 pairs.

    python -m experiments.train --config=experiments/configs/software.py \\
        --config.data.path=DIR --workdir=runs/software

Hardware: 2 CPU cores. Time: at most 60 minutes. Aim: test BLEU (sacreBLEU) of 10; not measured yet.
"""

from experiments.config import default_config


def get_config():
    """A small, fast model: in an hour on two cores, pairs seen count for more than width."""
    config = default_config()
    config.model.update(encoder_layers=4, decoder_layers=2, d_model=256, d_ff=1024, num_heads=4)
    config.model.update(norm="pre", dropout=0.05)
    config.data.update(source="text", vocab_size=8000, tokens_per_batch=3000, max_length=80)
    config.optimizer.update(schedule="rsqrt", learning_rate=1.5e-3, warmup_steps=800, clip_norm=1.0)
    config.train.update(num_steps=100_000, eval_every=1000, checkpoint_every=1000)
    config.train.update(max_minutes=52.0, ema=0.998, bleu_sentences=300)
    return config
