"""Configs: one experiment per file, described in its docstring."""
