"""Count requests, and convert exceptions into status 500 and one log line."""

import asyncio

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from experiments.console import log
from serve.metrics import Metrics


class Guard:
    """Middleware that counts requests by path and status, and answers exceptions with 500.

    Exceptions are logged in one line on stderr, also BaseExceptions such as panics of tokenizers.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: set[str]):
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"
        started = False

        async def sent(message):
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._metrics.requests.labels(path, message["status"]).inc()
            await send(message)

        try:
            await self._app(scope, receive, sent)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            log(f"{scope['method']} {path} failed: {describe_error(error)}")
            if not started:
                answer = await broken()
                await answer(scope, receive, sent)


async def broken(*_) -> Response:
    """The response to an internal error."""
    return JSONResponse({"error": "a mistake of the server's own: see its log"}, 500)


def describe_error(error: BaseException) -> str:
    """Format an error's type, message and source location."""
    line = " ".join(f"{type(error).__name__}: {error}".split())[:500]
    line = "".join(char if char.isprintable() else "?" for char in line)  # it may quote a request
    last = error.__traceback__
    while last and last.tb_next:
        last = last.tb_next
    return f"{line} ({last.tb_frame.f_code.co_filename}:{last.tb_lineno})" if last else line
