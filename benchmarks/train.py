"""Training speed of Heed and its peers, interleaved, on the same pairs.

One JSON line per system: {system, precision, workload, cores, tokens_per_second (real tokens of
source and target, the median of the rounds), padding_fraction, peak_mb, compile_s (the first
round, compilation included), gflops, mfu (of the machine's own matrix product, measured in the same
round), ..}; a peer's line has Heed's speedup.

    python -m benchmarks.train --workload=T1 --peers=transformers,pytorch --cores=1
    python -m benchmarks.train --workload=T3 --data=DIR

Heed's line also has the speed of its input pipeline alone, from ids (input_tokens_per_second). T3
is the complete command on real text with the base model: startup_s, loop_cost (relative extra time
of a step in the training loop), and text_tokens_per_second (speed from files to batches,
train_loop.py).
"""

import json
import os
import sys
from pathlib import Path

from absl import app, flags

from benchmarks import interleaved

WORKLOAD = flags.DEFINE_enum("workload", "T1", ("T1", "T2", "T3"), "Workload to train on.")
PRECISION = flags.DEFINE_enum(
    "precision", "float32", ("float32", "bfloat16"), "Precision of the matrix products."
)
PACKING = flags.DEFINE_bool("packing", True, "Pack several pairs into a row (Heed).")
CHUNKED = flags.DEFINE_bool("chunked_loss", True, "Compute the logits in chunks (Heed).")
_PEERS = {"transformers": ("transformers", "torch"), "pytorch": ("torch",)}  # packages
PEERS = flags.DEFINE_list("peers", [], f"{', '.join(_PEERS)}; with [bench] installed.")
flags.register_validator(PEERS, lambda names: set(names) <= {*_PEERS}, f"supported: {[*_PEERS]}")
PEERS_KEEP_MEMORY = flags.DEFINE_bool(
    "peers_keep_memory",
    False,
    "Keep freed memory in the process (experiments/malloc.py) for peers, too: faster, but not "
    "their default.",
)
CORES = flags.DEFINE_integer(
    "cores", 1, "Number of cores per system.", 1, len(os.sched_getaffinity(0))
)
DATA = flags.DEFINE_string("data", "", "For T3: a folder with, for example, train.en and train.de.")
LANGUAGES = flags.DEFINE_list("languages", ["en", "de"], "For T3: source and target language.")
STEPS = flags.DEFINE_integer("steps", 300, "Number of steps in T3.", lower_bound=1)
ROUNDS = flags.DEFINE_integer("rounds", 3, "Measured rounds of each system.", lower_bound=1)
SYSTEM = flags.DEFINE_enum(
    "system", None, ("heed", *_PEERS), "For internal use: run as this system."
)


def main(_) -> None:
    """Run the systems, or run as one of them."""
    if SYSTEM.value:
        return _run_system(SYSTEM.value)
    if WORKLOAD.value == "T3":
        return _measure_command()
    for peer in PEERS.value:
        interleaved.check_installed(peer, _PEERS[peer])
    flag_values = [
        f"--{flag.name}={flag.value}" for flag in (WORKLOAD, PRECISION, CORES, PACKING, CHUNKED)
    ]
    keep_memory = f"--peers_keep_memory={PEERS_KEEP_MEMORY.value}"
    systems = dict.fromkeys(["heed", *PEERS.value], [*flag_values, keep_memory])
    results = interleaved.measure("benchmarks.train", systems, ROUNDS.value)
    machine = results["heed"][1]
    for name, (ready, rounds) in results.items():
        line = dict(
            system=name,
            precision=PRECISION.value,
            workload=WORKLOAD.value,
            cores=CORES.value,
            tokens_per_second=interleaved.speed(rounds),
            peak_mb=rounds[0]["peak_mb"],  # later rounds include the compiler of machine_gflops
            **ready,
        )
        gflop = line.pop("gflop_per_token")
        line["gflops"] = round(gflop * line["tokens_per_second"], 1)
        line["mfu"] = interleaved.mfu(rounds, gflop, machine)
        if name != "heed":
            line["speedup"] = interleaved.speedup(results["heed"][1], rounds)
        print(json.dumps(line), flush=True)


def _measure_command() -> None:
    """Run T3, for Heed only: the peers have no such command."""
    if PEERS.value:
        sys.exit(f"--peers={','.join(PEERS.value)}: T3 is Heed's own command, without peers")
    if len(LANGUAGES.value) != 2:
        sys.exit(f"--languages={','.join(LANGUAGES.value)}: T3 needs two, source and target")
    for language in LANGUAGES.value:
        if not Path(DATA.value, f"train.{language}").is_file():
            sys.exit(
                f"--workload=T3 needs --data=DIR with train.{language}: {DATA.value!r} has none"
            )

    source, target = LANGUAGES.value
    interleaved.pin(CORES.value)
    from benchmarks import train_loop
    from experiments import malloc

    malloc.tune_malloc()
    result = train_loop.measure(DATA.value, (source, target), STEPS.value, PRECISION.value)
    settings = dict(precision=PRECISION.value, workload="T3", cores=CORES.value)
    print(json.dumps({"system": "heed", **settings, **result}), flush=True)


def _run_system(name: str) -> None:
    interleaved.pin(CORES.value)
    import importlib

    from benchmarks import train_workloads
    from benchmarks.heed_system import machine_gflops
    from experiments import malloc

    if name == "heed" or PEERS_KEEP_MEMORY.value:
        malloc.tune_malloc()
    module = importlib.import_module(f"benchmarks.train_{name}")
    options = (PACKING.value, CHUNKED.value) if name == "heed" else (CORES.value,)
    run, fields = module.make(train_workloads.workload(WORKLOAD.value), PRECISION.value, *options)
    if name != "heed":
        return interleaved.serve_rounds(run, fields)
    interleaved.serve_rounds(
        run, fields, lambda: {"machine_gflops": machine_gflops(PRECISION.value)}
    )


if __name__ == "__main__":
    app.run(main)
