"""Tiny demo: 64 pairs per split and 30 steps in seconds, to check that everything runs.

    python -m experiments.train --config=experiments/configs/tiny.py --workdir=runs/tiny

Hardware: one CPU core. Time: 15 seconds. It learns almost nothing; tests run notebooks and
how-to pages with it.
"""

from experiments.configs import demo


def get_config():
    """One layer of 32 units, one batch shape, short outputs."""
    config = demo.get_config()
    config.model.update(encoder_layers=1, decoder_layers=1, d_model=32, d_ff=64, num_heads=2)
    config.data.update(vocab_size=600, max_pairs=64, tokens_per_batch=800, num_buckets=1)
    config.optimizer.update(warmup_steps=5)
    config.train.update(num_steps=30, log_every=5, eval_every=15, checkpoint_every=15)
    config.train.update(eval_bleu_sentences=16)
    config.search.update(beam_size=2, max_length_offset=0)
    return config
