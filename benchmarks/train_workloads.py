"""Training workloads: random pairs of given lengths.

T1: 32 pairs of 64 and 64 tokens, base model. T2: lengths as in real text, a small model.
"""

from dataclasses import dataclass, replace

import numpy as np

from benchmarks.workloads import FIRST_WORD, base
from data.pipeline import Ragged, TokenPairs
from model.config import TransformerConfig

SMOOTHING, LEARNING_RATE = 0.1, 1e-4
STEP_TOKENS = 4000  # approximate target tokens per step of T2


@dataclass(frozen=True)
class Workload:
    """Pairs of ids without EOS, the model config, and the number of steps per round."""

    pairs: TokenPairs
    config: TransformerConfig
    steps: int


def workload(name: str) -> Workload:
    """T1 or T2; the same for every system."""
    rng = np.random.default_rng(0)
    if name == "T1":
        config, steps = replace(base(), dropout=0.1), 3
        source = target = np.full(32, 64)
    else:
        config = TransformerConfig(
            vocab_size=8000, encoder_layers=3, decoder_layers=3, d_model=256, d_ff=1024, num_heads=4
        )
        steps, count = 6, 20_000
        # A target is about as long as its source: the logarithm of the ratio has deviation 0.2.
        source = np.exp(np.log(18) + 0.6 * rng.standard_normal(count))
        target = source * np.exp(0.2 * rng.standard_normal(count))
        source, target = (np.clip(np.round(side), 2, 64).astype(int) for side in (source, target))

    def token_rows(lengths):
        rows = [rng.integers(FIRST_WORD, config.vocab_size, n - 1).tolist() for n in lengths]
        return Ragged(rows)

    return Workload(TokenPairs(token_rows(source), token_rows(target)), config, steps)
