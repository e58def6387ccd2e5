"""The end of an error about an unknown name: the nearest known names."""

from difflib import get_close_matches


def nearest(name: str, names) -> str:
    """End of an error message about an unknown name: the nearest known name, or all names."""
    near = get_close_matches(name, list(names), n=1)
    return f": did you mean {near[0]}?" if near else f"; there are: {', '.join(names)}"
