"""Training: batches in, a trained model out (paper, section 5)."""
