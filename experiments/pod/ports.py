"""Free ports for local processes."""

import socket


def free_port() -> int:
    """Return a free local port."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
