"""Middleware that counts requests, and converts exceptions to status 500 and one log line."""

import asyncio

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from experiments.console import log
from serve.metrics import ServerMetrics


class Guard:
    """Middleware that counts requests by path and status, and answers exceptions with 500.

    Exceptions are logged in one line on stderr, also BaseExceptions such as panics of tokenizers.
    """

    def __init__(self, app: ASGIApp, metrics: ServerMetrics, paths: set[str]):
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        response_started = False

        async def counting_send(message):
            nonlocal response_started
            if message["type"] == "http.response.start":
                response_started = True
                self._metrics.requests.labels(path, message["status"]).inc()
            await send(message)

        try:
            await self._app(scope, receive, counting_send)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            log(f"{scope['method']} {path} failed: {describe_error(error)}")
            if not response_started:
                response = await internal_error()
                await response(scope, receive, counting_send)


async def internal_error(*_) -> Response:
    """The response to an internal error."""
    return JSONResponse({"error": "internal server error: see the server's log"}, 500)


def describe_error(error: BaseException) -> str:
    """Format an error's type, message and source location."""
    line = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    line = "".join(char if char.isprintable() else "?" for char in line)  # it may quote a request
    entry = error.__traceback__
    while entry and entry.tb_next:
        entry = entry.tb_next
    return f"{line} ({entry.tb_frame.f_code.co_filename}:{entry.tb_lineno})" if entry else line
