"""Launchers of multi-process training: one script per kind of cluster."""
