"""Marian's own model files: arrays, settings, vocabularies and shortlists."""
