"""Decoding speed of Heed and its peers, interleaved, on the same weights and sources.

Each system runs in its own process, pinned to the same cores; rounds alternate between them, so
other load on the machine affects all alike. One JSON line per system: {system, precision,
workload, tokens_per_second (median of the rounds), peak_mb (of its process), compile_s (the first
run, compilation included), ..}; Heed's has `gflops` and `machine_gflops` (of a matrix product), and
a peer's line has Heed's speedup, the median of the rounds.

    python -m benchmarks.decode --workload=W1 --precision=float32 --peers=ctranslate2 --cores=1
"""

import json
import os
import sys

from absl import app, flags

from benchmarks import interleaved

WORKLOAD = flags.DEFINE_enum("workload", "W1", ("W1", "W2", "W3", "W4"), "Workload to translate.")
_PRECISIONS = ("float32", "bfloat16", "int8")
PRECISION = flags.DEFINE_enum("precision", "float32", _PRECISIONS, "Precision of Heed's weights.")
_PEERS = {"ctranslate2": ("ctranslate2",), "transformers": ("transformers", "torch")}  # packages
PEERS = flags.DEFINE_list("peers", [], f"{', '.join(_PEERS)}; with [bench] installed.")
flags.register_validator(PEERS, lambda names: set(names) <= {*_PEERS}, f"supported: {[*_PEERS]}")
PEER_PRECISION = flags.DEFINE_enum(
    "peer_precision", None, _PRECISIONS, "Precision of the peers' weights; default: as Heed's."
)
CORES = flags.DEFINE_integer(
    "cores", 1, "Number of cores per system.", 1, len(os.sched_getaffinity(0))
)
ROUNDS = flags.DEFINE_integer("rounds", 5, "Measured runs of each system.", lower_bound=1)
TOKENS = flags.DEFINE_integer(
    "tokens_per_batch",
    1536,
    "Source positions of Heed's batches in W4; other workloads are one batch.",
)
SYSTEM = flags.DEFINE_enum(
    "system", None, ("heed", *_PEERS), "For internal use: run as this system."
)


def main(argv):
    """Run the systems, or run as one of them."""
    del argv
    if SYSTEM.value:
        return _run_system(SYSTEM.value)
    systems = {"heed": PRECISION.value}
    systems |= {peer: PEER_PRECISION.value or PRECISION.value for peer in PEERS.value}
    for peer in PEERS.value:
        _check(peer, systems[peer])
    flag_values = [f"--{flag.name}={flag.value}" for flag in (WORKLOAD, CORES, TOKENS)]
    starts = {
        name: [*flag_values, f"--precision={precision}"] for name, precision in systems.items()
    }
    results = interleaved.measure("benchmarks.decode", starts, ROUNDS.value)
    for name, (ready, rounds) in results.items():
        line = dict(
            system=name,
            precision=systems[name],
            workload=WORKLOAD.value,
            cores=CORES.value,
            tokens_per_second=interleaved.speed(rounds),
            peak_mb=rounds[-1]["peak_mb"],
            **ready,
        )
        if name == "heed":
            line["gflops"] = round(line.pop("gflop_per_token") * line["tokens_per_second"], 1)
        else:
            line["speedup"] = interleaved.speedup(results["heed"][1], rounds)
        print(json.dumps(line), flush=True)


def _check(peer: str, precision: str) -> None:
    """Exit with an error if this machine cannot run the peer at that precision."""
    interleaved.check_installed(peer, _PEERS[peer])
    supported = {"float32", "bfloat16"}
    if peer == "ctranslate2":
        import ctranslate2

        supported = ctranslate2.get_supported_compute_types("cpu")  # depends on the processor
    choices = [name for name in _PRECISIONS if name in supported]
    if precision not in choices:
        sys.exit(
            f"--peers={peer} does not support {precision} on this machine, only "
            f"{' and '.join(choices)}: set --peer_precision, or remove the peer"
        )


def _run_system(name: str) -> None:
    interleaved.pin(CORES.value)
    import importlib

    from benchmarks import workloads
    from experiments import malloc

    malloc.tune_malloc()
    module = importlib.import_module(f"benchmarks.{name}_system")
    config = workloads.base()
    work = workloads.workload(WORKLOAD.value, config)
    search, fields = module.make(config, work, PRECISION.value, CORES.value, TOKENS.value)

    def run() -> int:
        search()
        return work.tokens

    interleaved.serve_rounds(run, fields)


if __name__ == "__main__":
    app.run(main)
