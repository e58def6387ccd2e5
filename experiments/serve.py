"""Serve a trained model over HTTP: a web page and a JSON API.

    python -m experiments.serve --workdir=DIR
    curl -d '{"text": "I am a student.", "n_best": 2}' http://127.0.0.1:8000/translate

Prints {"url"} as a line of JSON once it listens; GET /health returns 200 once all searches are
compiled. serve/app.py documents the API. On SIGTERM, pending requests are completed before
shutdown. Ctrl-C does the same, with exit status 130; a second Ctrl-C exits immediately.
"""

import sys
from signal import SIGINT, SIGTERM

from absl import flags

from decode.options import InputError
from experiments import cli, model_flags, search_flags
from experiments.console import log, print_json, progress_bar
from experiments.float_flags import define_float
from experiments.signals import INTERRUPTED, handling
from model import ConfigError

flags.adopt_module_key_flags(search_flags)  # so that --help shows them too
HOST = flags.DEFINE_string("host", "127.0.0.1", "The address to listen on; 0.0.0.0: all.")
flags.register_validator("host", bool, "must not be empty: 0.0.0.0 is for all addresses")
PORT = flags.DEFINE_integer("port", 8000, "Port; 0: any free port.", 0, 65535)
BEAM_SIZES = flags.DEFINE_list(
    "beam_sizes",
    [],
    "Beam sizes that requests may choose from, the default first; each is compiled.",
)
MAX_TOKENS = flags.DEFINE_integer(
    "max_tokens", 2000, "Maximum tokens of a request, over all its texts; otherwise status 422.", 1
)
MAX_BODY_BYTES = flags.DEFINE_integer(
    "max_body_bytes", 1 << 18, "Maximum bytes of a request body; otherwise status 413.", 1
)
MAX_QUEUE = flags.DEFINE_integer(
    "max_queue",
    512,
    "Maximum waiting requests, at most half of them from one address; otherwise status 503.",
    1,
)
MAX_CONNECTIONS = flags.DEFINE_integer(
    "max_connections",
    1000,
    "Maximum open connections; beyond it, the oldest idle connection is closed.",
    1,
)
TIMEOUT = define_float(
    "timeout", 30.0, "Seconds from a request to its response; otherwise status 504.", 0.001, 86400.0
)
CLIENT_TIMEOUT = define_float(
    "client_timeout",
    10.0,
    "Seconds for a client to send the headers of a request, and to read the response; then the "
    "connection is closed.",
    0.001,
    86400.0,
)
BATCH_WAIT_SECONDS = define_float(
    "batch_wait_seconds",
    0.04,
    "Seconds that concurrent requests wait for a larger batch; a single request does not wait.",
    0.0,
    60.0,
)
ALLOWED_HOSTS = flags.DEFINE_list(
    "allowed_hosts",
    [],
    "Further allowed Host names, besides localhost, --host and numeric addresses; their pages may "
    "use the server too; *: any.",
)


def main() -> None:
    """Serve the model of the flags until a signal."""
    try:
        from serve import http_server
        from serve.app import Service
        from serve.compiled_searches import CompiledSearches
        from serve.guard import describe_error
        from serve.hosts import is_loopback
        from serve.limits import Limits
    except ModuleNotFoundError as error:
        raise ConfigError(f"{error.name} is not installed: pip install -e '.[serve]'") from None

    # Between two steps the search may wait this long for the GIL, held by the response thread.
    sys.setswitchinterval(0.0005)
    beam_sizes = _beam_sizes()
    if search_flags.N_BEST.value:
        raise InputError("--n_best has no meaning here: each request sets its own n_best")
    listener = http_server.listen(HOST.value, PORT.value)
    trained = model_flags.load()
    searches = CompiledSearches(trained, search_flags.translator_from_flags(trained), beam_sizes)
    limits = Limits(
        body=MAX_BODY_BYTES.value,
        tokens=MAX_TOKENS.value,
        queue=MAX_QUEUE.value,
        seconds=TIMEOUT.value,
        connections=http_server.allowed_connections(MAX_CONNECTIONS.value),
        client_seconds=CLIENT_TIMEOUT.value,
    )

    def precompile() -> None:
        with progress_bar("compiling", len(searches.steps())) as progress:
            searches.precompile(progress, lambda: not server.should_exit)
        log("ready")

    interrupts: list[int] = []

    def request_shutdown(*_) -> None:
        server.should_exit = True

    def on_sigint() -> None:  # uvicorn re-raises the signal when it exits
        interrupts.append(SIGINT)
        request_shutdown()

    service = Service(
        searches,
        limits,
        batch_wait_seconds=BATCH_WAIT_SECONDS.value,
        allowed_hosts=[HOST.value, *ALLOWED_HOSTS.value],
        on_start=precompile,
        on_failure=request_shutdown,
    )
    server = http_server.make_server(service.app(), limits)
    host, port = listener.getsockname()[:2]
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    log(f"serving {model_flags.WORKDIR.value} at {url}")
    if not is_loopback(host):
        log("warning: anyone who can reach this address can use it: no password, no encryption")
    print_json({"url": url})
    http_server.force_exit(server, 2 * http_server.grace_seconds(limits))
    with handling(SIGTERM, request_shutdown), handling(SIGINT, on_sigint, exit_on_second=False):
        server.run(sockets=[listener])
    failure = service.batcher.failure
    if isinstance(failure, cli.USER_ERRORS):
        raise failure
    if failure:
        cli.fail(f"the search thread failed: {describe_error(failure)}")
    if interrupts:
        log("heed: interrupted")
        sys.exit(INTERRUPTED)


def _beam_sizes() -> list[int]:
    if not all(beam.isdecimal() and int(beam) for beam in BEAM_SIZES.value):
        raise ConfigError(
            f"--beam_sizes={','.join(BEAM_SIZES.value)}: must be whole numbers from 1"
        )
    return [int(beam) for beam in BEAM_SIZES.value]


if __name__ == "__main__":
    cli.run(main)
