"""The command that serves, as a process: load, what clients should not do, its end."""

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from benchmarks import adversarial_clients
from benchmarks.clients import Client
from benchmarks.load import Load
from tests.experiments.commands import ROOT, environment, heed, refused

pytestmark = pytest.mark.slow

FEW_SHAPES = "--long_input=split:15", "--tokens_per_batch=16", "--port=0"


@pytest.fixture
def server(run, tmp_path):
    workdir, *_ = run
    command = [sys.executable, "-m", "experiments.serve", f"--workdir={workdir}", *FEW_SHAPES]
    pipe = subprocess.PIPE
    with open(tmp_path / "err", "w") as err:
        with subprocess.Popen(command, stdout=pipe, stderr=err, env=environment(), cwd=ROOT) as it:
            it.client = Client(json.loads(it.stdout.readline())["url"])
            it.client.wait_until_ready(it)
            yield it
            it.kill()
    assert "Traceback" not in (tmp_path / "err").read_text()


def test_the_server_outlives_its_clients_and_ends_when_told(server, run, monkeypatch):
    workdir, *_ = run
    client, sentences = server.client, ["red cat", "two dog", "green dog one"]
    code, offline, err = heed("translate", f"--workdir={workdir}", stdin="\n".join(sentences))
    assert code == 0, err
    expected = offline.splitlines()
    for texts in 1, 3:
        load = Load(client, sentences, expected, alignment=True, texts=texts)
        load.run(clients=5, seconds=0.5)
        assert load.asked == len(load.times) >= 5 and load.lost == load.different == 0
        assert load.sentences == texts * load.asked
    wrong = Load(client, sentences, ["no"] * 3, alignment=False)
    wrong.run(clients=1, seconds=0.01)
    assert wrong.different == wrong.asked
    lost = Load(client, ["dog " * 10_000], ["no"], alignment=False)
    lost.run(clients=1, seconds=0.01)
    assert lost.lost == lost.asked >= 1
    for name, less in ("_MANY", 40), ("_CROWD", 60), ("_GREEDY", 4), ("_HELD", 0.1):
        monkeypatch.setattr(adversarial_clients, name, less)
    happened = {}
    for name, case in adversarial_clients.CASES.items():
        happened[name] = case(client)
        assert client.alive() and server.poll() is None, name
    assert happened["oversized bodies"] == "3 times 413 Request Entity Too Large"
    assert happened["malformed JSON"] == "10 times 400 Bad Request"
    assert "4 times 422" in happened["10,000-word inputs"]
    assert happened["other sites"] == "1 times 421 Misdirected Request, 2 times 403 Forbidden"
    assert "400" in happened["no HTTP"]
    # What was asked before the end is answered, whether its search was begun or not.
    body = json.dumps({"text": ["red cat"] * 60}).encode()  # a search of its own for each
    with ThreadPoolExecutor() as pool:
        last = [pool.submit(client.ask, "POST", "/translate", body) for _ in range(2)]
        while not client.metric("heed_queue_requests"):
            assert not any(each.done() for each in last)
            time.sleep(0.002)
        server.send_signal(signal.SIGTERM)
        for status, answer in (each.result() for each in last):
            found = [told["text"] for told in json.loads(answer)["translations"]]
            assert status == 200 and found == [expected[0]] * 60
    assert server.wait(60) == 0
    with pytest.raises(OSError):
        client.ask("GET", "/health")


def test_mistakes_in_serving_end_in_one_line(run, server):
    workdir, *_ = run
    here = f"--workdir={workdir}"
    taken = f"--port={server.client.port}"
    assert f"{taken}: Address already in use" in refused("serve", here, taken)
    assert "--n_best has no meaning here" in refused("serve", here, "--n_best=2")
    assert "--beam_sizes=2,x: must be whole numbers from 1" in refused(
        "serve", here, "--beam_sizes=2,x"
    )
    assert "flag --host=: must not be empty" in refused("serve", here, "--host=", "--timeout=1")
    greedy = "--method=greedy", "--beam_sizes=1"
    assert "--beam_sizes is for --method=beam, not greedy" in refused(
        "serve", here, "--port=0", *greedy
    )
