"""Data pipeline: text in, batches of token ids out."""
