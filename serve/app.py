"""HTTP application: the web page and the JSON API.

POST /translate {"text": one line or a list, "n_best", "beam_size", "alignment"}; returns
                {"translations": [..]}, each as in experiments/json_output.py
GET /           the web page
GET /health     200 and {"status": "ready"}, or 503 while searches are compiled ("starting"), while
                the server shuts down ("draining"), or after its search thread failed ("failed")
GET /metrics    Prometheus metrics

Statuses: 400 not HTTP, not JSON, or an invalid field; 403 a page of another site; 404, 405; 408
timeout of headers or body; 413 body too large; 421 a host that is not served; 422 too many tokens,
or no translation has a finite score; 431 headers too large; 500 internal error; 503, with
Retry-After, queue full, too many connections or not ready; 504 timeout of a translation. Every
error is {"error": "..."}.
"""

import asyncio
import math
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from decode.options import InputError
from experiments.report.templates import read_template
from serve.compiled_searches import CompiledSearches
from serve.dynamic_batcher import Batcher, ClosedError, QueueFullError
from serve.guard import Guard, internal_error
from serve.hosts import HostCheck, client_key
from serve.limits import Limits, RequestError
from serve.metrics import ServerMetrics
from serve.request import TranslateRequest, parse_request

_CLIENT_CLOSED_REQUEST = 499  # nginx's status for a client that disconnected before the response
_MAX_MERGED_BATCHES = 4  # in one search: about a second of work under load
_LARGE = 1 << 11  # bytes; parsing larger bodies would block other requests
_MAX_PARSERS = 4  # large requests that are parsed concurrently
_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class Service:
    """Translation service: searches, the thread that runs them, limits and metrics."""

    def __init__(
        self,
        searches: CompiledSearches,
        limits: Limits,
        *,
        batch_wait_seconds: float = 0.0,
        allowed_hosts: Collection[str] = (),
        **thread,
    ):
        self.searches, self.limits = searches, limits
        self._allowed_hosts = allowed_hosts
        self.batcher: Batcher[int, TranslateRequest, list[dict]] = Batcher(
            self._search,
            max_batch_size=searches.max_batch_size,
            max_merged_batches=_MAX_MERGED_BATCHES,
            max_queue=limits.queue,
            batch_wait_seconds=batch_wait_seconds,
            **thread,
        )
        self.metrics = ServerMetrics(self.batcher.waiting)

    def app(self) -> ASGIApp:
        """The ASGI application; its lifespan starts and stops the search thread."""
        routes = [
            Route("/", self._page),
            Route("/translate", self._translate, methods=["POST"]),
            Route("/health", self._health),
            Route("/metrics", self._metrics),
        ]
        handlers: dict[Any, Callable] = {
            RequestError: _error_response,
            HTTPException: _http_error_response,
            500: internal_error,
        }

        @asynccontextmanager
        async def lifespan(_):
            self._parser_limit = anyio.CapacityLimiter(_MAX_PARSERS)
            self.batcher.start()
            yield
            await run_in_threadpool(self.batcher.close)

        app = Starlette(routes=routes, exception_handlers=handlers, lifespan=lifespan)
        app.router.redirect_slashes = False  # redirects would go to an unchecked Host
        checked = HostCheck(app, self._allowed_hosts)
        return Guard(checked, self.metrics, {route.path for route in routes})

    def _search(self, beam_size: int, requests: Sequence[TranslateRequest]) -> list[list[dict]]:
        start = time.monotonic()
        answers = self.searches.answer(beam_size, requests)
        self.metrics.search_seconds.observe(time.monotonic() - start)
        self.metrics.batch_requests.observe(len(requests))
        self.metrics.batch_texts.observe(sum(len(request.texts) for request in requests))
        return answers

    async def _page(self, _: Request) -> Response:
        return HTMLResponse(
            read_template("translator"), headers={"Content-Security-Policy": _POLICY}
        )

    async def _health(self, _: Request) -> Response:
        status = "ready" if self.batcher.ready.is_set() else "starting"
        status = "draining" if self.batcher.closed else status
        status = "failed" if self.batcher.failure else status
        data = self.searches.trained.experiment.data
        health = {
            "status": status,
            "beam_sizes": [*self.searches.beam_sizes],  # the default first
            "n_best": next(iter(self.searches.beam_sizes.values())),
            "languages": [data.source_language, data.target_language],
            "max_tokens": self.limits.tokens,
        }
        return JSONResponse(health, 200 if status == "ready" else 503)

    async def _metrics(self, _: Request) -> Response:
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def _translate(self, request: Request) -> Response:
        start = time.monotonic()
        try:
            body = await self._body(request)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_CLOSED_REQUEST)
        translate_request = await self._read(body, start)
        if not self.batcher.ready.is_set():
            raise RequestError(503, "not ready: searches are still compiled", {"Retry-After": "5"})
        try:
            # Size in sentences; a long one counts as several sentences of 32 tokens.
            size = max(len(translate_request.texts), math.ceil(translate_request.tokens / 32))
            client = client_key(request.client.host) if request.client else None
            future = self.batcher.submit(
                translate_request, translate_request.beam_size, size, client
            )
        except QueueFullError:
            raise RequestError(503, "too many requests wait", {"Retry-After": "1"}) from None
        except ClosedError:
            raise _closed_error() from None
        translations, disconnected = (
            asyncio.wrap_future(future),
            asyncio.ensure_future(_disconnected(request)),
        )
        try:
            futures: set[asyncio.Future] = {translations, disconnected}
            await asyncio.wait(
                futures, timeout=self._remaining_seconds(start), return_when=asyncio.FIRST_COMPLETED
            )
            if translations.done():
                self.metrics.seconds.observe(time.monotonic() - start)
                return JSONResponse({"translations": translations.result()})
            if disconnected.done():
                return Response(status_code=_CLIENT_CLOSED_REQUEST)
        except InputError as error:
            raise RequestError(422, str(error)) from None
        except ClosedError:  # the search thread failed
            raise _closed_error() from None
        finally:
            translations.cancel()  # removes it from the queue if it is not done
            disconnected.cancel()
        raise self._timeout_error()

    async def _read(self, body: bytes, start: float) -> TranslateRequest:
        """Parse the body, in another thread if it is large."""
        arguments = (
            body,
            self.searches.beam_sizes,
            self.searches.trained.vocabulary.source,
            self.limits,
        )
        if len(body) < _LARGE:
            return parse_request(*arguments)
        run = anyio.to_thread.run_sync
        try:
            async with asyncio.timeout(self._remaining_seconds(start)):
                return await run(
                    parse_request, *arguments, abandon_on_cancel=True, limiter=self._parser_limit
                )
        except TimeoutError:
            raise self._timeout_error() from None

    def _remaining_seconds(self, start: float) -> float:
        """Seconds until the timeout of a request that arrived at `start`."""
        return max(self.limits.seconds - (time.monotonic() - start), 0.0)

    def _timeout_error(self) -> RequestError:
        return RequestError(504, f"no translation within {self.limits.seconds:g} seconds")

    async def _body(self, request: Request) -> bytes:
        """Read the body; drain an oversized one (within limits), so that the client gets a 413."""
        limit, size, chunks = self.limits.body, 0, []
        try:
            async with asyncio.timeout(self.limits.seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size <= limit:
                        chunks.append(chunk)
                    elif size > 64 * limit:
                        break
        except TimeoutError:
            raise RequestError(
                408, "timeout of the request body", {"Connection": "close"}
            ) from None
        if size > limit:
            close = {"Connection": "close"}
            raise RequestError(413, f"the body has more than {limit} bytes", close)
        return b"".join(chunks)


def _closed_error() -> RequestError:
    return RequestError(503, "the server is shutting down", {"Retry-After": "5"})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _error_response(_: Request, error: RequestError) -> Response:
    return JSONResponse({"error": error.message}, error.status, error.headers)


async def _http_error_response(request: Request, error: HTTPException) -> Response:
    message = f"{request.method} {request.url.path[:100]}: {error.detail}"
    return JSONResponse({"error": message}, error.status_code, error.headers)
