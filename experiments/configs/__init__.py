"""Configs: one experiment per file, with a card as docstring."""
