"""The server under load, compared with offline translation of the same sentences.

Starts `experiments.serve` on a free port, lets `clients` clients send requests of `texts` sentences
for `seconds`, and then runs the cases of adversarial_clients.py. Lines of JSON: {ready_s: start-up
of the server}, one for the load {requests, failed, different, median_ms, p99_ms,
sentences_per_second, offline_sentences_per_second (before and after), fraction_of_offline
(throughput, as a ratio), mean_batch}, and one for each adversarial case {case, outcome, alive:
whether the server translates afterwards}. "failed" counts requests without a response of status
200, "different" those whose texts differ from offline. Exit status 1 if any failed or differed,
or the server died.

    python -m benchmarks.serve --workdir=DIR --clients=50 --seconds=60
    python -m benchmarks.serve --workdir=DIR --input=test.en  # for a run without text
"""

import json
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

from absl import app, flags

from benchmarks.adversarial_clients import CASES
from benchmarks.clients import Client
from benchmarks.load import Load
from experiments.float_flags import define_float

WORKDIR = flags.DEFINE_string("workdir", None, "A trained run's folder.", required=True)
CLIENTS = flags.DEFINE_integer("clients", 50, "Number of concurrent clients.", 1)
SECONDS = define_float("seconds", 60.0, "Duration of the load in seconds.", 0.0)
TEXTS = flags.DEFINE_integer("texts", 1, "Sentences per request.", 1)
SENTENCES = flags.DEFINE_integer("sentences", 1000, "Number of sentences, from the first on.", 1)
INPUT = flags.DEFINE_string("input", None, "A file of sentences; default: the run's test split.")
ALIGNMENT = flags.DEFINE_bool("alignment", False, "Request alignments, offline as well.")


def main(argv):
    """Measure offline, under load, and offline again."""
    del argv
    offline, sentences = _offline(Path(WORKDIR.value), SENTENCES.value, ALIGNMENT.value)
    expected, _ = offline()  # compiles
    command = [sys.executable, "-m", "experiments.serve", f"--workdir={WORKDIR.value}", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None  # it is a pipe
            client = Client(json.loads(server.stdout.readline())["url"])
            start = time.monotonic()
            client.wait_until_ready(server)
            print(json.dumps({"ready_s": round(time.monotonic() - start, 1)}), flush=True)
            speeds = [offline()[1]]
            load = Load(client, sentences, expected, ALIGNMENT.value, TEXTS.value)
            load.run(CLIENTS.value, SECONDS.value)
            speeds.append(offline()[1])
            print(json.dumps(_summarize(load, speeds, client)), flush=True)
            passed = not load.failed and not load.different
            for name, case in CASES.items():
                outcome = case(client)
                alive = client.alive() and server.poll() is None
                passed = passed and alive
                line = {"case": name, "outcome": outcome, "alive": alive}
                print(json.dumps(line), flush=True)
        finally:
            server.send_signal(signal.SIGTERM)
            code = server.wait(60)
    print(json.dumps({"case": "SIGTERM", "outcome": f"exit {code}"}), flush=True)
    sys.exit(0 if passed and code == 0 else 1)


def _summarize(load: Load, speeds: list[float], client: Client) -> dict:
    times = sorted(load.times)
    speed, offline = load.sentences / load.seconds, statistics.mean(speeds)
    return {
        "clients": CLIENTS.value,
        "texts": TEXTS.value,
        "seconds": round(load.seconds, 1),
        "requests": load.num_requests,
        "failed": load.failed,
        "different": load.different,
        "median_ms": round(1000 * statistics.median(times), 1),
        "p99_ms": round(1000 * times[int(0.99 * (len(times) - 1))], 1),
        "sentences_per_second": round(speed, 1),
        "offline_sentences_per_second": [round(value, 1) for value in speeds],
        "fraction_of_offline": round(speed / offline, 3),
        "mean_batch": round(client.metric("heed_batch_texts_sum") / client.metric(
            "heed_batch_texts_count"), 1),
    }  # fmt: skip


def _offline(workdir: Path, count: int, alignment: bool):
    """Return a function () -> (texts, sentences/s) that translates all sentences, and these."""

    from decode import shortlist
    from decode.translate import Translator
    from experiments import malloc
    from experiments.compilation_cache import enable_compilation_cache
    from experiments.json_output import hypotheses_to_json
    from experiments.translation_data import open_split, sources_and_references
    from experiments.translator import build_translator
    from experiments.workdir import load

    enable_compilation_cache()
    malloc.tune_malloc()
    trained = load(workdir, mesh=None)
    if INPUT.value:
        sentences = Path(INPUT.value).read_text("utf-8").splitlines()[:count]
    else:
        sentences, _ = sources_and_references(open_split(trained.experiment, "test"), count)
    translator: Translator = build_translator(
        trained.experiment,
        trained.model,
        trained.params,
        trained.vocabulary,
        trained.mesh,
        shortlist.load(workdir),
    )

    def offline() -> tuple[list[str], float]:
        start = time.perf_counter()
        translations = hypotheses_to_json(
            translator.hypotheses(sentences), trained, alignment=alignment
        )
        speed = len(sentences) / (time.perf_counter() - start)
        return [translation["text"] for translation in translations], speed

    return offline, sentences


if __name__ == "__main__":
    app.run(main)
