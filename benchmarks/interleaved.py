"""Interleaved measurement: one process per system, on the same cores, in rounds.

Other load on the machine then affects all systems alike. A system is the same command with
`--system=NAME`: it prints a line of JSON when it is ready, and then, for every line on stdin, runs
a round and prints its measurements.
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
    """Exit with an error if one of the peer's packages is missing."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        sys.exit(f"--peers={peer} needs {' and '.join(missing)}: pip install -e .[bench]")


def measure(
    module: str, systems: Mapping[str, Sequence[str]], rounds: int
) -> dict[str, tuple[dict, list[dict]]]:
    """Run all systems; return the ready line and the lines of all rounds by system.

    `systems` has the flags of each system by name.
    """
    running, ready = {}, {}
    for name, arguments in systems.items():
        command = [sys.executable, "-m", module, f"--system={name}", *arguments]
        pipe = subprocess.PIPE
        running[name] = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        ready[name] = _read_line(name, running[name])
    results: dict[str, list[dict]] = {name: [] for name in running}
    for _ in range(rounds):
        for name, process in running.items():
            print("go", file=process.stdin, flush=True)
            results[name].append(_read_line(name, process))
    for process in running.values():
        process.communicate()  # closes stdin, which ends them
    return {name: (ready[name], results[name]) for name in running}


def speed(rounds: Sequence[dict]) -> float:
    """Median tokens per second."""
    return round(statistics.median(result["tokens_per_second"] for result in rounds), 1)


def mfu(rounds: Sequence[dict], gflop_per_token: float, machine: Sequence[dict]) -> float:
    """Model FLOPs utilization: median fraction of the machine's GFLOP/s in the same round."""
    pairs = zip(rounds, machine, strict=True)
    ratios = (gflop_per_token * x["tokens_per_second"] / y["machine_gflops"] for x, y in pairs)
    return round(statistics.median(ratios), 3)


def speedup(rounds: Sequence[dict], peer_rounds: Sequence[dict]) -> float:
    """Median speed ratio of `rounds` to `peer_rounds`, round by round."""
    pairs = zip(rounds, peer_rounds, strict=True)
    return round(
        statistics.median(x["tokens_per_second"] / y["tokens_per_second"] for x, y in pairs), 3
    )


def pin(cores: int) -> None:
    """Pin this process and its children to the first `cores` cores."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    os.environ["OMP_NUM_THREADS"] = str(cores)


def serve_rounds(run: Callable[[], int], facts: dict, measure: Callable[[], dict] = dict) -> None:
    """Serve rounds as a system: `run` does a round and returns its number of tokens.

    `measure` returns more fields of a round's line; it is called right after the round.
    """
    start = time.perf_counter()
    run()
    print(json.dumps({"compile_s": round(time.perf_counter() - start, 1)} | facts), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        tokens = run()
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        result = {"tokens_per_second": tokens / seconds, "peak_mb": peak} | measure()
        print(json.dumps(result), flush=True)


def _read_line(name: str, process: subprocess.Popen) -> dict:
    assert process.stdout is not None  # it is a pipe
    line = process.stdout.readline()
    if not line:
        sys.exit(f"{name} exited without a result")
    return json.loads(line)
