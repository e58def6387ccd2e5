"""Commands that start one training on many processes, a command for each kind of cluster."""
