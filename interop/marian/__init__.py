"""Import of native Marian models: arrays, settings, vocabularies and shortlists."""
