"""Suggestions for unknown names in error messages."""

from difflib import get_close_matches


def did_you_mean(name: str, names) -> str:
    """End of an error message about an unknown name: the nearest known name, or all names."""
    matches = get_close_matches(name, list(names), n=1)
    return f": did you mean {matches[0]}?" if matches else f"; choices: {', '.join(names)}"
