"""DataError: data that cannot be used."""

from data.printable import printable


class DataError(ValueError):
    """Data that cannot be used; the message is one line that says where and what to do."""

    def __init__(self, message: str):
        # Names and values from files may hold line breaks: the message is one line to all readers.
        super().__init__(printable(message.rstrip()))
