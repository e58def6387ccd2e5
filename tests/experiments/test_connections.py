"""The server over real connections: what badly behaved clients do, and that others are answered."""

import json
import socket
import struct
import time
from dataclasses import replace

import pytest

from tests.experiments.serving import LIMITS, Echo, connect, heard, listening, until

QUICK = replace(LIMITS, client_seconds=0.3, headers=1024, connections=8, seconds=20.0)
PATIENT = replace(QUICK, client_seconds=20.0)
POST = b"POST /translate HTTP/1.1\r\nHost: localhost\r\n"
HEAD = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
BODY = json.dumps({"text": "a"}).encode()
ASK = POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY


def open_connections(there):
    return len(there.server.server_state.connections)


@pytest.mark.parametrize(
    ("sent", "answer"),
    [
        (POST + b"Transfer-Encoding: chunked\r\n\r\nno size\r\n", b"400"),
        (b"", b""),
        (HEAD, b"408"),
        (HEAD + b"X: " + b"a" * 1100, b"431"),
        (b"a" * 1100, b"431"),
        (b"\x16\x03\x01 no HTTP\r\n\r\n", b"400"),
        # After the body's last chunk come trailers, which are headers too.
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * 1100, b"431"),
    ],
    ids=["bad chunk", "silent", "half", "large", "large line", "no HTTP", "trailers"],
)
def test_a_connection_without_a_request_is_closed(sent, answer, capfd):
    with listening(Echo(), QUICK) as there, connect(there) as connection:
        connection.sendall(sent)
        found = heard(connection)
        assert found.startswith(b"HTTP/1.1 " + answer if answer else b"")
        assert bool(found) == bool(answer)
        if answer in (b"408", b"431", b"400"):
            assert "error" in json.loads(found.partition(b"\r\n\r\n")[2])
            assert b"x-content-type-options: nosniff" in found.lower()
        assert there.alive()
        until(lambda: open_connections(there) == 0)
    assert capfd.readouterr() == ("", "")


def test_bytes_one_by_one_do_not_extend_the_deadline():
    with listening(Echo(), QUICK) as there, connect(there) as connection:
        connection.sendall(ASK)  # one that was answered may not either
        start = time.monotonic()
        with pytest.raises(OSError):
            while time.monotonic() < start + 15:
                connection.sendall(b"G")
                time.sleep(0.01)
        assert time.monotonic() < start + 15 and there.alive()


def test_more_connections_than_allowed_close_the_oldest_that_ask_nothing():
    echo = Echo()
    with listening(echo, PATIENT) as there, connect(there) as asking:
        echo.may.clear()
        asking.sendall(ASK)
        until(lambda: echo.asked)
        waiting = [connect(there) for _ in range(20)]
        for number, connection in enumerate(waiting):
            # Nothing, half a header, half a body.
            connection.sendall([b"", HEAD, ASK[:-1]][number % 3])
        until(lambda: open_connections(there) == PATIENT.connections)
        assert there.ask("GET", "/health")[0] == 200
        assert open_connections(there) <= PATIENT.connections
        assert heard(waiting[0]) == b""
        echo.may.set()
        asking.settimeout(20)
        assert asking.recv(1 << 16).startswith(b"HTTP/1.1 200")
        assert there.alive()
        for connection in waiting:
            connection.close()


def test_where_all_connections_ask_one_more_is_refused():
    echo = Echo()
    with listening(echo, replace(PATIENT, connections=2)) as there:
        echo.may.clear()
        asking = [connect(there) for _ in range(2)]
        for number, connection in enumerate(asking, 1):
            connection.sendall(ASK)
            until(lambda n=number: len(echo.asked) + there.service.batcher.waiting() == n)
        with connect(there) as more:
            answer = heard(more)
        assert answer.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in answer
        echo.may.set()
        for connection in asking:
            connection.settimeout(20)
            assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200")
            connection.close()


def test_a_client_that_reads_no_answers_is_closed():
    with listening(Echo(), replace(QUICK, connections=100)) as there, connect(there) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.05)
        asked = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
        sent = 0
        with pytest.raises(OSError):  # no more is read of it, and then it is closed
            while sent < 10_000:
                try:
                    connection.sendall(asked * 100)
                except TimeoutError:
                    assert there.alive()
                sent += 1
        until(lambda: open_connections(there) == 0)


def test_requests_of_one_connection_are_answered_one_at_a_time():
    echo = Echo()
    with listening(echo, PATIENT) as there, connect(there) as connection:
        echo.may.clear()
        connection.sendall(ASK * 50 + HEAD + b"Connection: close\r\n\r\n")
        until(lambda: echo.asked)
        time.sleep(0.05)
        assert there.service.batcher.waiting() == 0 and len(there.server.server_state.tasks) == 1
        echo.may.set()
        assert heard(connection).count(b"HTTP/1.1 200 OK") == 51
        assert len(echo.asked) == 50


@pytest.mark.parametrize("reset", [False, True])
def test_clients_that_leave_amid_pipelined_requests_leave_no_trace(reset, capfd):
    echo = Echo()
    with listening(echo, PATIENT) as there:
        echo.may.clear()
        gone = [connect(there) for _ in range(4)]
        for connection in gone:
            connection.sendall(ASK * 50)
        until(lambda: echo.asked)
        for connection in gone:
            if reset:
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.close()
        echo.may.set()
        until(lambda: open_connections(there) == 0)
        assert there.alive()
    assert capfd.readouterr() == ("", "")


def test_what_was_accepted_is_answered_at_the_end_whoever_else_is_connected():
    echo = Echo()
    with listening(echo, PATIENT) as there:
        echo.may.clear()
        others = [connect(there) for _ in range(3)]
        others[0].sendall(HEAD)
        others[1].sendall(b"G")
        with connect(there) as asking:
            asking.sendall(ASK)
            until(lambda: echo.asked)
            there.server.should_exit = True
            for connection in others:
                assert heard(connection) == b""
                connection.close()
            echo.may.set()
            answer = heard(asking)
            assert answer.startswith(b"HTTP/1.1 200") and b"connection: close" in answer.lower()
