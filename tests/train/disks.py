"""A fake full disk: limits the bytes that os.write accepts."""

import errno
import os


class Disk:
    """Replaces os.write; `free_bytes` is the number of bytes that it still accepts."""

    def __init__(self, monkeypatch, free_bytes):
        self.free_bytes, self._write = free_bytes, os.write
        monkeypatch.setattr(os, "write", self.write)

    def write(self, file, content):
        """Writes fewer bytes than requested, then raises ENOSPC, as the system does."""
        content = bytes(content[: self.free_bytes])
        if not content:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.free_bytes -= len(content)
        return self._write(file, content)
