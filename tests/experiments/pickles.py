"""A pickle that creates a marker file if it is executed."""


class Program:
    """An object whose unpickling opens `marker` for writing."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (self.marker, "w")
