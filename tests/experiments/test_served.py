"""The serve command as a process: load, adversarial clients, shutdown."""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import pytest

from benchmarks import adversarial_clients
from benchmarks.clients import Client
from benchmarks.load import Load
from tests.experiments.commands import ROOT, environment, error_line, heed

pytestmark = pytest.mark.slow

FEW_SHAPES = "--long_input=split:15", "--tokens_per_batch=16", "--port=0"


@pytest.fixture
def server(run, tmp_path):
    workdir, *_ = run
    command = [sys.executable, "-m", "experiments.serve", f"--workdir={workdir}", *FEW_SHAPES]
    pipe = subprocess.PIPE
    with open(tmp_path / "err", "w") as err:
        with subprocess.Popen(
            command, stdout=pipe, stderr=err, env=environment(), cwd=ROOT
        ) as process:
            process.client = Client(json.loads(process.stdout.readline())["url"])
            process.client.wait_until_ready(process)
            yield process
            process.kill()
    assert "Traceback" not in (tmp_path / "err").read_text()


def test_the_server_survives_adversarial_clients_and_drains_on_sigterm(server, run, monkeypatch):
    workdir, *_ = run
    client, sentences = server.client, ["red cat", "two dog", "green dog one"]
    code, offline, err = heed("translate", f"--workdir={workdir}", stdin="\n".join(sentences))
    assert code == 0, err
    expected = offline.splitlines()
    for texts in 1, 3:
        load = Load(client, sentences, expected, alignment=True, texts=texts)
        load.run(clients=5, seconds=0.5)
        assert load.num_requests == len(load.times) >= 5 and load.failed == load.different == 0
        assert load.sentences == texts * load.num_requests
    wrong = Load(client, sentences, ["no"] * 3, alignment=False)
    wrong.run(clients=1, seconds=0.01)
    assert wrong.different == wrong.num_requests
    failing = Load(client, ["dog " * 10_000], ["no"], alignment=False)
    failing.run(clients=1, seconds=0.01)
    assert failing.failed == failing.num_requests >= 1
    smaller = dict(_NUM_CLIENTS=40, _NUM_CONNECTIONS=60, _NUM_GREEDY=4, _SECONDS=0.1)
    for name, value in smaller.items():
        monkeypatch.setattr(adversarial_clients, name, value)
    outcomes = {}
    for name, case in adversarial_clients.CASES.items():
        outcomes[name] = case(client)
        assert client.alive() and server.poll() is None, name
    assert outcomes["oversized bodies"] == f"3 times 413 {HTTPStatus(413).phrase}"
    assert outcomes["malformed JSON"] == "10 times 400 Bad Request"
    assert "4 times 422" in outcomes["10,000-word inputs"]
    assert outcomes["other sites"] == "1 times 421 Misdirected Request, 2 times 403 Forbidden"
    assert "400" in outcomes["no HTTP"]
    # In-flight and queued requests are completed before shutdown.
    body = json.dumps({"text": ["red cat"] * 60}).encode()  # one search for each
    with ThreadPoolExecutor() as pool:
        requests = [pool.submit(client.request, "POST", "/translate", body) for _ in range(2)]
        while not client.metric("heed_queue_requests"):
            assert not any(request.done() for request in requests)
            time.sleep(0.002)
        server.send_signal(signal.SIGTERM)
        for status, answer in (request.result() for request in requests):
            translated = [translation["text"] for translation in json.loads(answer)["translations"]]
            assert status == 200 and translated == [expected[0]] * 60
    assert server.wait(60) == 0
    with pytest.raises(OSError):
        client.request("GET", "/health")


def test_invalid_serve_flags_are_one_line_errors(run, server):
    workdir, *_ = run
    workdir_flag = f"--workdir={workdir}"
    port_flag = f"--port={server.client.port}"
    assert f"{port_flag}: Address already in use" in error_line("serve", workdir_flag, port_flag)
    assert "--n_best has no meaning here" in error_line("serve", workdir_flag, "--n_best=2")
    assert "--beam_sizes=2,x: must be whole numbers from 1" in error_line(
        "serve", workdir_flag, "--beam_sizes=2,x"
    )
    assert "flag --host=: must not be empty" in error_line(
        "serve", workdir_flag, "--host=", "--timeout=1"
    )
    greedy = "--method=greedy", "--beam_sizes=1"
    assert "--beam_sizes is for --method=beam, not greedy" in error_line(
        "serve", workdir_flag, "--port=0", *greedy
    )
