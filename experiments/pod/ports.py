"""Free ports for local processes."""

import socket


def free_port() -> int:
    """A port that nobody on this machine listens at."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
