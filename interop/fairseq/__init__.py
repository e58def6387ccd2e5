"""fairseq's Transformer checkpoints: files, settings and weights."""
