"""Importers and exporters for models of other systems: one file per format, and shared code."""
