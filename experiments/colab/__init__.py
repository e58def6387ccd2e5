"""Notebooks for Colab, without library code."""
