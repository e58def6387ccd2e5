"""Other systems' models become runs: one file a format, and what several of them share."""
