"""Connection limits and timeouts for uvicorn's HTTP/1.1 protocol.

h11 limits the size of headers and trailers, and reads one request of a connection at a time. This
module adds a timeout for headers, a timeout for reading the response, and a maximum of open
connections: beyond it, the oldest connection without a complete request is closed.
"""

import asyncio
import json
from collections.abc import Sequence

import h11
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from serve.limits import Limits


class LimitedConnection(H11Protocol):
    """One connection; set `config.h11_max_incomplete_event_size` to `limits.headers`."""

    def __init__(self, *args, limits: Limits, **kwargs):
        super().__init__(*args, **kwargs)
        self._limits = limits
        self._headers_timer: asyncio.TimerHandle | None = None
        self._response_timer: asyncio.TimerHandle | None = None
        self.aborted = False
        self.idle_since = self.loop.time()  # time of opening, or of the last response

    @property
    def in_request(self) -> bool:
        """Whether a request with complete headers has no complete response yet."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def awaits_response(self) -> bool:
        """Whether a complete request has no complete response yet."""
        return self.in_request and not self.cycle.more_body

    # The type is narrower than asyncio's, as in uvicorn.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Call `pause_writing` whenever the client has not read all data.
        transport.set_write_buffer_limits(high=0)
        self._watch_headers()
        self._enforce_connection_limit()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timers()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()

    def handle_events(self) -> None:
        super().handle_events()
        self._watch_headers()

    def on_response_complete(self) -> None:
        self.idle_since = self.loop.time()
        super().on_response_complete()
        self._watch_headers()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._response_timer = self.loop.call_later(self._limits.client_seconds, self.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._response_timer:
            self._response_timer.cancel()
            self._response_timer = None

    def send_400_response(self, msg: str) -> None:
        limit = self._limits.headers
        if len(self.conn.trailing_data[0]) > limit:
            self._refuse(431, f"the headers have more than {limit} bytes")
        else:
            self._refuse(400, "the request is not HTTP/1.1")

    def shutdown(self) -> None:
        if self.in_request:  # no more requests on this connection
            self.cycle.default_headers = [*self.cycle.default_headers, CLOSE_HEADER]
        try:
            super().shutdown()
        except h11.LocalProtocolError:  # a refused connection that is closing
            self.abort()

    def abort(self) -> None:
        """Close immediately; unsent data is dropped."""
        self.aborted = True
        self._stop_timers()
        self.transport.abort()

    def _watch_headers(self) -> None:
        """Start the timeout of the next request's headers; clear it during a request."""
        if self.in_request or self.transport.is_closing():
            if self._headers_timer:
                self._headers_timer.cancel()
                self._headers_timer = None
        elif self._headers_timer is None:
            self._headers_timer = self.loop.call_later(
                self._limits.client_seconds, self._on_headers_timeout
            )

    def _on_headers_timeout(self) -> None:
        self._headers_timer = None
        if self.conn.trailing_data[0]:
            seconds = self._limits.client_seconds
            self._refuse(408, f"no complete headers within {seconds:g} seconds")
        else:
            self.transport.close()

    def _enforce_connection_limit(self) -> None:
        """Close the oldest connection without a complete request if too many are open."""
        if len(self.connections) <= self._limits.connections:
            return
        limited = (peer for peer in self.connections if isinstance(peer, LimitedConnection))
        open_connections = [peer for peer in limited if not peer.aborted]
        if len(open_connections) <= self._limits.connections:
            return
        idle = [peer for peer in open_connections if peer is not self and not peer.awaits_response]
        if idle:
            min(idle, key=lambda peer: peer.idle_since).abort()
        else:
            self._refuse(503, "too many connections", [(b"retry-after", b"1")])

    def _refuse(
        self, status: int, message: str, extra_headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        """Respond with an error without calling the application, and close."""
        if self.in_request:  # drop further output of the application
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):  # a response has started
            self.abort()
            return
        body = json.dumps({"error": message}).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            *extra_headers,
        ]
        start = h11.Response(status_code=status, headers=headers, reason=STATUS_PHRASES[status])
        for event in start, h11.Data(data=body):
            self.transport.write(self.conn.send(event))
        self.conn.send(h11.EndOfMessage())
        self.transport.close()

    def _stop_timers(self) -> None:
        for timer in self._headers_timer, self._response_timer:
            if timer:
                timer.cancel()
        self._headers_timer = self._response_timer = None
