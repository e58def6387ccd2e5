"""A pickle that leaves a witness where it is run."""


class Program:
    """What a pickle can be."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return open, (self.witness, "w")
