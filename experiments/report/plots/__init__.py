"""Pictures as values: each function takes what is drawn and returns a matplotlib Figure."""
