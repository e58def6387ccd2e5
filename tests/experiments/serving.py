"""A service for tests: a small run or a stub in process, or a stub over real connections."""

import socket
import threading
import time
from contextlib import contextmanager
from types import SimpleNamespace

import jax
from starlette.testclient import TestClient

from benchmarks.clients import Client
from decode.options import SearchOptions
from decode.translate import Translator
from experiments import workdir
from model.sharding import make_mesh
from serve import http_server
from serve.app import Service
from serve.compiled_searches import CompiledSearches
from serve.limits import Limits


def small_searches(folder, beams=(2, 1)):
    """Few shapes, so that they are soon compiled."""
    trained = workdir.load(folder, "best", make_mesh(devices=jax.devices()[:1]))
    translator = Translator(
        trained.model,
        trained.params,
        trained.vocabulary,
        trained.mesh,
        SearchOptions(max_length_offset=5),
        tokens_per_batch=128,
        long_input="split:31",
    )
    return CompiledSearches(trained, translator, beams)


class Echo:
    """Searches whose translations are the texts themselves, and a tokenizer that splits at spaces.

    Each search waits until `may` is set; `asked` has the texts of each.
    """

    beams, max_batch_size = {2: 2}, 4

    def __init__(self):
        source = SimpleNamespace(encode=lambda texts: [text.split() for text in texts])
        data = SimpleNamespace(source_language="en", target_language="de")
        self.trained = SimpleNamespace(
            vocabulary=SimpleNamespace(source=source), experiment=SimpleNamespace(data=data)
        )
        self.may, self.asked = threading.Event(), []
        self.may.set()

    def answer(self, beam_size, asked):
        self.asked.append([text for each in asked for text in each.texts])
        assert self.may.wait(60)
        return [[{"text": text} for text in each.texts] for each in asked]


LIMITS = Limits(body=5000, tokens=300, queue=4, seconds=60.0)


@contextmanager
def client(searches, limits=LIMITS, **options):
    app = Service(searches, limits, **options).app()
    with TestClient(app, base_url="http://localhost") as there:
        yield there


@contextmanager
def listening(echo, limits=LIMITS, **options):
    """A client of a server of an `Echo` that listens on a free port, from this process."""
    service = Service(echo, limits, **options)
    server = http_server.make_server(service.app(), limits)
    with http_server.listen("127.0.0.1", 0) as there:
        host, port = there.getsockname()
        thread = threading.Thread(target=server.run, kwargs=dict(sockets=[there]))
        thread.start()
        try:
            until(service.batcher.ready.is_set)
            found = Client(f"http://{host}:{port}")
            found.server, found.service = server, service
            yield found
        finally:
            echo.may.set()  # whatever failed, so that the server can end
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def heard(connection):
    """All that comes until the other end closes; a reset is an end."""
    connection.settimeout(20)
    found = b""
    try:
        while some := connection.recv(1 << 16):
            found += some
    except ConnectionResetError:
        pass
    return found


def connect(there):
    return socket.create_connection(there.address, 20)


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def told(there, name):
    (line,) = (x for x in there.get("/metrics").text.splitlines() if x.startswith(f"{name} "))
    return float(line.split()[-1])
