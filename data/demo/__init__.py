"""The demo corpus: sentence pairs from a small English-German grammar; no download.

A sentence is a derivation: a kind of clause and one choice in each of its slots, said in both
languages. A number in mixed radix names the choices, so any sentence is computed from its index.
A seeded bijection scatters the indices, so a corpus has no repeated sentence within a split or
across splits.

Every English word has one German word in its place, so that the translation is a function:
`you` is always `du`, `teacher` is `Lehrer` (but `Lehrerin` where a woman is said to be one).
"""

from data.demo.source import Demo

__all__ = ["Demo"]
