"""DataError: data that cannot be used."""

from data.printable import printable


class DataError(ValueError):
    """Data that cannot be used; the message is one line with the location and a remedy."""

    def __init__(self, message: str):
        # Names and values from files may contain line breaks; the message must be one line.
        super().__init__(printable(message.rstrip()))
