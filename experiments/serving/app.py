"""The page and the JSON API over HTTP: what is asked, awaited, and answered with which status.

POST /translate {"text": one line or a list, "n_best", "beam_size", "alignment"}; the answer is
                {"translations": [..]}, each as in experiments/answers.py
GET /           the page
GET /health     200 and {"status": "ready"}, or 503 while searches are compiled or the server ends
GET /metrics    Prometheus

Statuses: 400 not JSON, or a field that is wrong; 404, 405; 408 a body that does not come; 413 one
too large; 422 more tokens than are taken, or no translation has a finite score; 503, with
Retry-After, queue full or not ready; 504 not done in time. Every error is {"error": "..."}, but
for what is no HTTP and for more connections than are served at all, which uvicorn answers itself.
"""

import asyncio
import math
import time
from collections.abc import Hashable, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from decode.options import InputError
from experiments.pages import page
from experiments.serving.asked import Asked, read
from experiments.serving.batcher import Batcher, ClosedError, QueueFullError
from experiments.serving.limits import Limits, RefusedError
from experiments.serving.metrics import Metrics
from experiments.serving.searches import Searches

_GONE = 499  # as servers note a client that left before its answer
_FOLD = 4  # batches that are searched at a time: a second's work, where many ask for much
_LARGE = 1 << 14  # bytes that take long enough to read that others should not wait for it
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Service:
    """What answers requests: searches, the thread that runs them, limits and metrics."""

    def __init__(self, searches: Searches, limits: Limits, *, window: float = 0.0, **thread):
        self.searches, self.limits = searches, limits
        self.batcher: Batcher[Asked, list[dict]] = Batcher(
            self._search,
            most=searches.most,
            fold=_FOLD,
            max_queue=limits.queue,
            window=window,
            **thread,
        )
        self.metrics = Metrics(self.batcher.waiting)

    def app(self) -> ASGIApp:
        """The ASGI application; the thread runs as long as it does."""
        routes = [
            Route("/", self._page),
            Route("/translate", self._translate, methods=["POST"]),
            Route("/health", self._health),
            Route("/metrics", self._metrics),
        ]
        handlers = {RefusedError: _refused, HTTPException: _refused_by_route, 500: _broken}

        @asynccontextmanager
        async def lifespan(_):
            self.batcher.start()
            yield
            await run_in_threadpool(self.batcher.close)

        app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
        return _Counted(app, self.metrics, {route.path for route in routes})

    def _search(self, key: Hashable, asked: Sequence[Asked]) -> list[list[dict]]:
        start = time.monotonic()
        found = self.searches.answer(key, asked)
        self.metrics.search_seconds.observe(time.monotonic() - start)
        self.metrics.batch_requests.observe(len(asked))
        self.metrics.batch_texts.observe(sum(len(each.texts) for each in asked))
        return found

    async def _page(self, _: Request) -> Response:
        return HTMLResponse(page("translator"), headers={"Content-Security-Policy": _POLICY})

    async def _health(self, _: Request) -> Response:
        status = "ready" if self.batcher.ready.is_set() else "starting"
        status = "ending" if self.batcher.closed else status
        data = self.searches.trained.experiment.data
        told = {
            "status": status,
            "beam_sizes": [*self.searches.beams],  # the default first
            "n_best": next(iter(self.searches.beams.values())),
            "languages": [data.source_language, data.target_language],
            "max_tokens": self.limits.tokens,
        }
        return JSONResponse(told, 200 if status == "ready" else 503)

    async def _metrics(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def _translate(self, request: Request) -> Response:
        start = time.monotonic()
        try:
            body = await self._body(request)
        except ClientDisconnect:
            return Response(status_code=_GONE)
        arguments = body, self.searches.beams, self.searches.trained.vocabulary.source, self.limits
        asked = (
            read(*arguments) if len(body) < _LARGE else await run_in_threadpool(read, *arguments)
        )
        if not self.batcher.ready.is_set():
            raise RefusedError(503, "not ready: searches are still compiled", {"Retry-After": "5"})
        try:
            # A batch's sentences count, and a long one as many as it takes the room of.
            size = max(len(asked.texts), math.ceil(asked.tokens / 32))
            answer = self.batcher.submit(asked, asked.beam_size, size)
        except QueueFullError:
            raise RefusedError(503, "too many requests wait", {"Retry-After": "1"}) from None
        except ClosedError:
            raise RefusedError(503, "the server ends", {"Retry-After": "5"}) from None
        found, gone = asyncio.wrap_future(answer), asyncio.ensure_future(_disconnected(request))
        left = self.limits.seconds - (time.monotonic() - start)
        try:
            await asyncio.wait({found, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if found.done():
                self.metrics.seconds.observe(time.monotonic() - start)
                return JSONResponse({"translations": found.result()})
            if gone.done():
                return Response(status_code=_GONE)
        except InputError as error:
            raise RefusedError(422, str(error)) from None
        finally:
            found.cancel()  # takes it out of the queue, where it is not done
            gone.cancel()
        raise RefusedError(504, f"not done within {self.limits.seconds:g} seconds")

    async def _body(self, request: Request) -> bytes:
        """The body; one too large is read to its end, within reason: so its answer is heard."""
        most, size, kept = self.limits.body, 0, []
        try:
            async with asyncio.timeout(self.limits.seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= most:
                        kept.append(chunk)
                    elif size > 64 * most:
                        break
        except TimeoutError:
            raise RefusedError(408, "the body did not come", {"Connection": "close"}) from None
        if size > most:
            close = {"Connection": "close"}
            raise RefusedError(413, f"the body has more than {most} bytes", close)
        return b"".join(kept)


class _Counted:
    """Counts every request by path and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: set[str]):
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message):
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in self._paths else "other"
                self._metrics.requests.labels(path, message["status"]).inc()
            await send(message)

        await self._app(scope, receive, sent if scope["type"] == "http" else send)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _refused(_: Request, error: RefusedError) -> Response:
    return JSONResponse({"error": error.message}, error.status, error.headers)


async def _refused_by_route(request: Request, error: HTTPException) -> Response:
    told = f"{request.method} {request.url.path[:100]}: {error.detail}"
    return JSONResponse({"error": told}, error.status_code, error.headers)


async def _broken(_: Request, __: Exception) -> Response:
    return JSONResponse({"error": "a mistake of the server's own"}, 500)
