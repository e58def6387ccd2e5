"""Decoding: search over cached keys and values; sentences in, sentences out."""
