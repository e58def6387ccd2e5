"""Launchers: one training on many processes, one script per kind of cluster."""
