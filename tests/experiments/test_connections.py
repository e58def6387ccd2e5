"""The server over real connections: misbehaving clients do not affect others."""

import json
import socket
import struct
import time
from dataclasses import replace

import pytest

from tests.experiments.serving import LIMITS, Echo, connect, receive_all, running_server, wait_until

SHORT_TIMEOUT = replace(LIMITS, client_seconds=0.3, headers=1024, connections=8, seconds=20.0)
LONG_TIMEOUT = replace(SHORT_TIMEOUT, client_seconds=20.0)
POST = b"POST /translate HTTP/1.1\r\nHost: localhost\r\n"
HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
BODY = json.dumps({"text": "a"}).encode()
REQUEST = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


def open_connections(client):
    return len(client.server.server_state.connections)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (POST + b"Transfer-Encoding: chunked\r\n\r\nno size\r\n", b"400"),
        (b"", b""),
        (HEAD, b"408"),
        (HEAD + b"X: " + b"a" * 1100, b"431"),
        (b"a" * 1100, b"431"),
        (b"\x16\x03\x01 no HTTP\r\n\r\n", b"400"),
        # Trailers after the last chunk of the body are headers too.
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * 1100, b"431"),
    ],
    ids=["bad chunk", "silent", "partial header", "large", "large line", "no HTTP", "trailers"],
)
def test_a_connection_without_a_request_is_closed(sent, status, capfd):
    with running_server(Echo(), SHORT_TIMEOUT) as client, connect(client) as connection:
        connection.sendall(sent)
        response = receive_all(connection)
        assert response.startswith(b"HTTP/1.1 " + status if status else b"")
        assert bool(response) == bool(status)
        if status in (b"408", b"431", b"400"):
            assert "error" in json.loads(response.partition(b"\r\n\r\n")[2])
            assert b"x-content-type-options: nosniff" in response.lower()
        assert client.alive()
        wait_until(lambda: open_connections(client) == 0)
    assert capfd.readouterr() == ("", "")


def test_bytes_one_by_one_do_not_extend_the_deadline():
    with running_server(Echo(), SHORT_TIMEOUT) as client, connect(client) as connection:
        connection.sendall(REQUEST)  # not even after an answered request
        start = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < start + 15:
                connection.sendall(b"G")
                time.sleep(0.01)
        assert time.monotonic() < start + 15 and client.alive()


def test_too_many_connections_close_the_oldest_idle_one():
    echo = Echo()
    with running_server(echo, LONG_TIMEOUT) as client, connect(client) as active:
        echo.proceed.clear()
        active.sendall(REQUEST)
        wait_until(lambda: echo.batches)
        idle = [connect(client) for _ in range(20)]
        for number, connection in enumerate(idle):
            # Nothing, half a header, half a body.
            connection.sendall([b"", HEAD, REQUEST[:-1]][number % 3])
        wait_until(lambda: open_connections(client) == LONG_TIMEOUT.connections)
        assert client.request("GET", "/health")[0] == 200
        assert open_connections(client) <= LONG_TIMEOUT.connections
        assert receive_all(idle[0]) == b""
        echo.proceed.set()
        active.settimeout(20)
        assert active.recv(1 << 16).startswith(b"HTTP/1.1 200")
        assert client.alive()
        for connection in idle:
            connection.close()


def test_a_connection_is_rejected_if_all_others_have_requests():
    echo = Echo()
    with running_server(echo, replace(LONG_TIMEOUT, connections=2)) as client:
        echo.proceed.clear()
        active = [connect(client) for _ in range(2)]
        for number, connection in enumerate(active, 1):
            connection.sendall(REQUEST)
            wait_until(lambda n=number: len(echo.batches) + client.service.batcher.waiting() == n)
        with connect(client) as extra:
            answer = receive_all(extra)
        assert answer.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in answer
        echo.proceed.set()
        for connection in active:
            connection.settimeout(20)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
            connection.close()


def test_a_client_that_reads_no_responses_is_disconnected():
    with (
        running_server(Echo(), replace(SHORT_TIMEOUT, connections=100)) as client,
        connect(client) as connection,
    ):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.05)
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        num_sent = 0
        with pytest.raises(OSError):  # the server stops reading and then closes
            while num_sent < 10_000:
                try:
                    connection.sendall(request * 100)
                except TimeoutError:
                    assert client.alive()
                num_sent += 1
        wait_until(lambda: open_connections(client) == 0)


def test_requests_of_one_connection_are_answered_one_at_a_time():
    echo = Echo()
    with running_server(echo, LONG_TIMEOUT) as client, connect(client) as connection:
        echo.proceed.clear()
        connection.sendall(REQUEST * 50 + HEAD + b"Connection: close\r\n\r\n")
        wait_until(lambda: echo.batches)
        time.sleep(0.05)
        assert client.service.batcher.waiting() == 0 and len(client.server.server_state.tasks) == 1
        echo.proceed.set()
        assert receive_all(connection).count(b"HTTP/1.1 200 OK") == 51
        assert len(echo.batches) == 50


@pytest.mark.parametrize("reset", [False, True])
def test_clients_may_disconnect_during_pipelined_requests(reset, capfd):
    echo = Echo()
    with running_server(echo, LONG_TIMEOUT) as client:
        echo.proceed.clear()
        connections = [connect(client) for _ in range(4)]
        for connection in connections:
            connection.sendall(REQUEST * 50)
        wait_until(lambda: echo.batches)
        for connection in connections:
            if reset:
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()
        echo.proceed.set()
        wait_until(lambda: open_connections(client) == 0)
        assert client.alive()
    assert capfd.readouterr() == ("", "")


def test_accepted_requests_are_answered_at_shutdown_despite_idle_connections():
    echo = Echo()
    with running_server(echo, LONG_TIMEOUT) as client:
        echo.proceed.clear()
        idle = [connect(client) for _ in range(3)]
        idle[0].sendall(HEAD)
        idle[1].sendall(b"G")
        with connect(client) as active:
            active.sendall(REQUEST)
            wait_until(lambda: echo.batches)
            client.server.should_exit = True
            for connection in idle:
                assert receive_all(connection) == b""
                connection.close()
            echo.proceed.set()
            answer = receive_all(active)
            assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer.lower()
