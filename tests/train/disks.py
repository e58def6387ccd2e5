"""A disk with a limit: what os.write may still write, without a disk of its own."""

import errno
import os


class Disk:
    """Takes the place of os.write; `room` is the number of bytes that it still takes."""

    def __init__(self, monkeypatch, room):
        self.room, self._write = room, os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, file, content):
        """As the system does: first fewer bytes than were given, then an error."""
        content = bytes(content[: self.room])
        if not content:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= len(content)
        return self._write(file, content)
