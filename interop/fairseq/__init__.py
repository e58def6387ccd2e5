"""Import of fairseq's Transformer checkpoints: files, settings and weights."""
