"""One experiment a file: a small diff from the defaults, with its card as docstring."""
