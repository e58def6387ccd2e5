"""Demo: a generated English-German grammar, trained from scratch in minutes.

    python -m experiments.train --config=experiments/configs/demo.py --workdir=runs/demo

Hardware: 2 shared CPU cores. Time: 4 minutes. Measured: test BLEU 99.9, chrF 99.9 (sacreBLEU).
"""

from experiments.config_io import default_config


def get_config():
    """A 2+2-layer Transformer of 128 units; high peak, short warm-up."""
    config = default_config()
    config.model.update(encoder_layers=2, decoder_layers=2, d_model=128, d_ff=512, num_heads=4)
    config.model.update(norm="pre", dropout=0.0)
    config.data.update(kind="demo", vocab_size=2000, tokens_per_batch=1500, num_buckets=4)
    config.optimizer.update(schedule="cosine", learning_rate=3e-3, warmup_steps=150, clip_norm=1.0)
    config.train.update(num_steps=1500, log_every=50, eval_every=500, checkpoint_every=500)
    config.train.update(eval_bleu_sentences=200, max_minutes=8.0)
    return config
