"""The HTTP server: uvicorn with limited connections and a bounded shutdown."""

import resource
import socket
import threading
import time
from functools import partial

import uvicorn
from starlette.types import ASGIApp

from experiments.signals import exit_now
from model import ConfigError
from serve.connections import LimitedConnection
from serve.limits import Limits

_RESERVED_FILES = 64  # open files of the process besides connections


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket. Raises ConfigError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--host={host} --port={port}: {reason}") from None


def allowed_connections(requested: int) -> int:
    """Raise the limit of open files (ulimit -n) for `requested` connections; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = requested + _RESERVED_FILES
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(soft - _RESERVED_FILES, 1)
    return requested


def grace_seconds(limits: Limits) -> int:
    """Seconds to answer accepted requests after SIGTERM."""
    return int(limits.seconds) + 5


def make_server(app: ASGIApp, limits: Limits) -> uvicorn.Server:
    """Create a server of the application, which does not listen yet."""
    config = uvicorn.Config(
        app,
        http=partial(LimitedConnection, limits=limits),  # type: ignore[arg-type]  # a factory
        h11_max_incomplete_event_size=limits.headers,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        headers=[("X-Content-Type-Options", "nosniff")],
        timeout_graceful_shutdown=grace_seconds(limits),
    )
    return uvicorn.Server(config)


def force_exit(server: uvicorn.Server, seconds: float) -> None:
    """Exit the process `seconds` after the server should exit, even if threads are stuck."""

    def watch() -> None:
        while not server.should_exit:
            time.sleep(0.2)
        time.sleep(seconds)
        exit_now(1, f"heed: error: no shutdown within {seconds:g} seconds: a request is stuck")

    threading.Thread(target=watch, name="force exit", daemon=True).start()
