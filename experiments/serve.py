"""Serve a trained model: a page to type on, and a JSON API.

    python -m experiments.serve --workdir=DIR
    curl -d '{"text": "I am a student.", "n_best": 2}' http://127.0.0.1:8000/translate

Prints {"url"} as a line of JSON once it listens; GET /health answers 200 once all searches are
compiled. experiments/serving/app.py has the API. SIGTERM: what was asked is answered, then it ends.
Ctrl-C does the same, with exit status 130; a second one ends it at once.
"""

import socket
import sys
from signal import SIGINT, SIGTERM

from absl import flags

from decode.options import InputError
from experiments import cli, decoding, loading
from experiments.console import bar, note, print_json
from experiments.signals import INTERRUPTED, handling
from model import ConfigError

flags.adopt_module_key_flags(decoding)  # so that --help tells them too
HOST = flags.DEFINE_string("host", "127.0.0.1", "The address to listen on; 0.0.0.0: all.")
PORT = flags.DEFINE_integer("port", 8000, "0: any that is free.", 0, 65535)
BEAMS = flags.DEFINE_list(
    "beams", [], "Beam sizes that requests may choose from, the default first; each is compiled."
)
MAX_TOKENS = flags.DEFINE_integer(
    "max_tokens", 2000, "Most tokens of a request, all its texts together; else status 422.", 1
)
MAX_BODY = flags.DEFINE_integer(
    "max_body", 1 << 18, "Most bytes of a request's body; else status 413.", 1
)
MAX_QUEUE = flags.DEFINE_integer(
    "max_queue", 256, "Most requests that wait for a search; else status 503.", 1
)
TIMEOUT = flags.DEFINE_float(
    "timeout", 30.0, "Seconds from a request to its answer; else status 504.", 0.001
)
WINDOW = flags.DEFINE_float(
    "window",
    0.04,
    "Seconds that requests which come together wait for more; one alone does not wait.",
    0.0,
)


def main() -> None:
    """Serve what the flags say until a signal ends it."""
    try:
        import uvicorn

        from experiments.serving.app import Service
        from experiments.serving.limits import Limits
        from experiments.serving.searches import Searches
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed: pip install -e '.[serve]'") from None

    # Between two steps the search waits for Python's lock, which the answers' thread holds as long.
    sys.setswitchinterval(0.0005)
    beams = _beams()
    if decoding.N_BEST.value:
        raise InputError("--n_best has no meaning here: a request says how many it wants")
    listening = _listen(HOST.value, PORT.value)
    trained = loading.load()
    searches = Searches(trained, decoding.make_translator(trained), beams)
    limits = Limits(MAX_BODY.value, MAX_TOKENS.value, MAX_QUEUE.value, TIMEOUT.value)

    def prepare() -> None:
        with bar("compiling", len(searches.steps())) as progress:
            searches.prepare(progress, lambda: not server.should_exit)
        note("ready")

    interrupts: list[int] = []

    def end(*_) -> None:
        server.should_exit = True

    def interrupted() -> None:  # uvicorn, when done, sends itself the signal again
        interrupts.append(SIGINT)
        end()

    service = Service(searches, limits, window=WINDOW.value, begin=prepare, failed=end)
    config = uvicorn.Config(
        service.app(),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=4 * MAX_QUEUE.value,
        timeout_graceful_shutdown=int(TIMEOUT.value) + 5,
    )
    server = uvicorn.Server(config)
    host, port = listening.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    note(f"serving {loading.WORKDIR.value} at {url}")
    print_json({"url": url})
    with handling(SIGTERM, end), handling(SIGINT, interrupted, again=False):
        server.run(sockets=[listening])
    if service.batcher.failure:
        raise service.batcher.failure
    if interrupts:
        note("heed: interrupted")
        sys.exit(INTERRUPTED)


def _beams() -> list[int]:
    if not all(beam.isdecimal() and int(beam) for beam in BEAMS.value):
        raise ConfigError(f"--beams={','.join(BEAMS.value)}: must be whole numbers from 1")
    return [int(beam) for beam in BEAMS.value]


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigError(f"--host={host} --port={port}: {error.strerror or error}") from None


if __name__ == "__main__":
    cli.run(main)
