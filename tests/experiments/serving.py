"""A small run as a service, for tests in process."""

import time
from contextlib import contextmanager

import jax
from starlette.testclient import TestClient

from decode.options import SearchOptions
from decode.translate import Translator
from experiments import workdir
from experiments.serving.app import Service
from experiments.serving.limits import Limits
from experiments.serving.searches import Searches
from model.sharding import make_mesh


def small_searches(folder, beams=(2, 1)):
    """Few shapes, so that they are soon compiled."""
    trained = workdir.load(folder, "best", make_mesh(devices=jax.devices()[:1]))
    translator = Translator(
        trained.model,
        trained.params,
        trained.vocabulary,
        trained.mesh,
        SearchOptions(extra_length=5),
        tokens_per_batch=128,
        max_input="split:31",
    )
    return Searches(trained, translator, beams)


LIMITS = Limits(body=5000, tokens=300, queue=3, seconds=60.0)


@contextmanager
def client(searches, limits=LIMITS, **options):
    with TestClient(Service(searches, limits, **options).app()) as there:
        yield there


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def told(there, name):
    (line,) = (x for x in there.get("/metrics").text.splitlines() if x.startswith(f"{name} "))
    return float(line.split()[-1])
