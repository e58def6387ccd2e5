"""Ahead-of-time compilation: programs for accelerators that are not here, and what they cost."""
