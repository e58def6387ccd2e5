"""Notebooks: they import Heed and define nothing of it."""
