"""Notebooks: they import, they never define."""
