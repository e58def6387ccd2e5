"""Interleaved measurement: one process per system, on the same cores, in rounds.

What else the machine does then falls on all alike. A system is this same command with
`--system=NAME`: it prints a line of JSON once it is ready, and for every line that it reads one of
what it has just measured.
"""

import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence


def check_installed(peer: str, packages: Sequence[str]) -> None:
    """Ends with a line where one of the peer's packages is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"--peers={peer} needs {' and '.join(missing)}: pip install -e .[bench]")


def measured(
    module: str, systems: Mapping[str, Sequence[str]], rounds: int
) -> dict[str, tuple[dict, list[dict]]]:
    """Of each system what it said when ready, and in each of the rounds.

    `systems` are the flags of each of them by name.
    """
    running, ready = {}, {}
    for name, own in systems.items():
        command = [sys.executable, "-m", module, f"--system={name}", *own]
        pipe = subprocess.PIPE
        running[name] = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        ready[name] = _answer(name, running[name])
    told: dict[str, list[dict]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, process in running.items():
            print("go", file=process.stdin, flush=True)
            told[name].append(_answer(name, process))
    for process in running.values():
        process.communicate()  # their input ends
    return {name: (ready[name], told[name]) for name in running}


def speed(rounds: Sequence[dict]) -> float:
    """The median."""
    return round(statistics.median(found["tokens_per_second"] for found in rounds), 1)


def share(rounds: Sequence[dict], gflop_a_token: float, machine: Sequence[dict]) -> float:
    """By how much of what the machine could do in the same round: the median."""
    both = zip(rounds, machine, strict=True)
    used = (gflop_a_token * x["tokens_per_second"] / y["machine_gflops"] for x, y in both)
    return round(statistics.median(used), 3)


def times(ours: Sequence[dict], theirs: Sequence[dict]) -> float:
    """How many times as fast ours was, round by round: the median."""
    both = zip(ours, theirs, strict=True)
    return round(
        statistics.median(x["tokens_per_second"] / y["tokens_per_second"] for x, y in both), 3
    )


def pin(cores: int) -> None:
    """Has this process and what it starts use the first `cores` cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    os.environ["OMP_NUM_THREADS"] = str(cores)


def be(run: Callable[[], int], facts: dict, beside: Callable[[], dict] = dict) -> None:
    """Is a system: `run` does a round's work and returns how many tokens that were.

    `beside` measures what is told of a round as well, right after it.
    """
    start = time.perf_counter()
    run()
    print(json.dumps({"compile_s": round(time.perf_counter() - start, 1)} | facts), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        tokens = run()
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        found = {"tokens_per_second": tokens / seconds, "peak_mb": peak} | beside()
        print(json.dumps(found), flush=True)


def _answer(name: str, process: subprocess.Popen) -> dict:
    assert process.stdout is not None  # it is a pipe
    line = process.stdout.readline()
    if not line:
        sys.exit(f"{name} ended without a result")
    return json.loads(line)
