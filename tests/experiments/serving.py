"""Services for tests: a small run or a stub in process, or a stub over real connections."""

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
    """Searches with few shapes, for fast compilation."""
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
    """A stub that translates each text to itself, with a tokenizer that splits at spaces.

    Each search waits until `proceed` is set; `batches` has the texts of each search.
    """

    beam_sizes, max_batch_size = {2: 2}, 4

    def __init__(self):
        source = SimpleNamespace(encode=lambda texts: [text.split() for text in texts])
        data = SimpleNamespace(source_language="en", target_language="de")
        self.trained = SimpleNamespace(
            vocabulary=SimpleNamespace(source=source), experiment=SimpleNamespace(data=data)
        )
        self.proceed, self.batches = threading.Event(), []
        self.proceed.set()

    def answer(self, beam_size, requests):
        self.batches.append([text for request in requests for text in request.texts])
        assert self.proceed.wait(60)
        return [[{"text": text} for text in request.texts] for request in requests]


LIMITS = Limits(body=5000, tokens=300, queue=4, seconds=60.0)


@contextmanager
def make_client(searches, limits=LIMITS, **options):
    app = Service(searches, limits, **options).app()
    with TestClient(app, base_url="http://localhost") as client:
        yield client


@contextmanager
def running_server(echo, limits=LIMITS, **options):
    """Runs a server of an `Echo` on a free port in this process; yields a client."""
    service = Service(echo, limits, **options)
    server = http_server.make_server(service.app(), limits)
    with http_server.listen("127.0.0.1", 0) as listener:
        host, port = listener.getsockname()
        thread = threading.Thread(target=server.run, kwargs=dict(sockets=[listener]))
        thread.start()
        try:
            wait_until(service.batcher.ready.is_set)
            client = Client(f"http://{host}:{port}")
            client.server, client.service = server, service
            yield client
        finally:
            echo.proceed.set()  # let the server end after a failure
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()


def receive_all(connection):
    """Receives until the peer closes or resets the connection."""
    connection.settimeout(20)
    data = b""
    try:
        while chunk := connection.recv(1 << 16):
            data += chunk
    except ConnectionResetError:
        pass
    return data


def connect(client):
    return socket.create_connection(client.address, 20)


def wait_until(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def metric_value(client, name):
    (line,) = (x for x in client.get("/metrics").text.splitlines() if x.startswith(f"{name} "))
    return float(line.split()[-1])
