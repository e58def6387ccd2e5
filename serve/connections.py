"""Connection limits and timeouts for uvicorn's HTTP/1.1 protocol.

h11 bounds the size of headers and trailers, and reads one request of a connection at a time. Added
here are a deadline for the headers, a deadline for reading the answer, and a maximum of open
connections: when one more comes, the oldest that has not yet sent a whole request is closed.
"""

import asyncio
import json
from collections.abc import Sequence

import h11
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from serve.limits import Limits


class LimitedConnection(H11Protocol):
    """One connection; `config.h11_max_incomplete_event_size` is to be `limits.headers`."""

    def __init__(self, *args, limits: Limits, **kwargs):
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._headers_timer: asyncio.TimerHandle | None = None
        self._answer_timer: asyncio.TimerHandle | None = None
        self.aborted = False
        self.since = self.loop.time()  # when it was opened, or the last answer was sent

    @property
    def in_request(self) -> bool:
        """Whether a request has begun, headers complete, that has no complete answer."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def asks(self) -> bool:
        """Whether a whole request has come that has no complete answer."""
        return self.in_request and not self.cycle.more_body

    # Of a narrower type than asyncio's, as uvicorn's own is.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # So that `pause_writing` is called whenever something is left that the client has not read.
        transport.set_write_buffer_limits(high=0)
        self._watch_headers()
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def handle_events(self) -> None:
        super().handle_events()
        self._watch_headers()

    def on_response_complete(self) -> None:
        self.since = self.loop.time()
        super().on_response_complete()
        self._watch_headers()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._answer_timer = self.loop.call_later(self._limits.client_seconds, self.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._answer_timer:
            self._answer_timer.cancel()
            self._answer_timer = None

    def send_400_response(self, msg: str) -> None:
        most = self._limits.headers
        if len(self.conn.trailing_data[0]) > most:
            self._refuse(431, f"the headers have more than {most} bytes")
        else:
            self._refuse(400, "the request is not HTTP/1.1")

    def shutdown(self) -> None:
        if self.in_request:  # so that the client asks no more on this connection
            self.cycle.default_headers = [*self.cycle.default_headers, CLOSE_HEADER]
        try:
            super().shutdown()
        except h11.LocalProtocolError:  # it was refused, and is about to be closed
            self.abort()

    def abort(self) -> None:
        """Close at once; what was not sent is dropped."""
        self.aborted = True
        self._stop_timers()
        self.transport.abort()

    def _watch_headers(self) -> None:
        """Set the deadline for the next request's headers; clear it where one is in progress."""
        if self.in_request or self.transport.is_closing():
            if self._headers_timer:
                self._headers_timer.cancel()
                self._headers_timer = None
        elif self._headers_timer is None:
            self._headers_timer = self.loop.call_later(
                self._limits.client_seconds, self._headers_are_late
            )

    def _headers_are_late(self) -> None:
        self._headers_timer = None
        if self.conn.trailing_data[0]:
            seconds = self._limits.client_seconds
            self._refuse(408, f"the headers did not come within {seconds:g} seconds")
        else:
            self.transport.close()

    def _make_room(self) -> None:
        """Close the oldest connection without a whole request where one too many is open."""
        if len(self.connections) <= self._limits.connections:
            return
        ours = (each for each in self.connections if isinstance(each, LimitedConnection))
        there = [each for each in ours if not each.aborted]
        if len(there) <= self._limits.connections:
            return
        idle = [each for each in there if each is not self and not each.asks]
        if idle:
            min(idle, key=lambda each: each.since).abort()
        else:
            self._refuse(503, "too many connections", [(b"retry-after", b"1")])

    def _refuse(self, status: int, message: str, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Answer outside of the application, and close."""
        if self.in_request:  # what the application still sends is dropped
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # it has begun an answer
            self.abort()
            return
        body = json.dumps({"error": message}).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *more,
        ]
        begin = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
        for event in begin, h11.Data(data=body):
            self.transport.write(self.conn.send(event))
        self.conn.send(h11.EndOfMessage())
        self.transport.close()

    def _stop_timers(self) -> None:
        for timer in self._headers_timer, self._answer_timer:
            if timer:
                timer.cancel()
        self._headers_timer = self._answer_timer = None
