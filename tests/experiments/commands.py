"""Commands run as a user runs them."""

import os
import subprocess
import sys
from pathlib import Path

from experiments.config import default_config, to_experiment
from tests.compiling import xla_flags

ROOT = Path(__file__).parent.parent.parent
WORDS = {"red": "rot", "green": "grün", "one": "eins", "two": "zwei", "cat": "Katze", "dog": "Hund"}
SMALL = """
    model.encoder_layers=1 model.decoder_layers=1 model.d_model=32 model.d_ff=64 model.num_heads=2
    model.dropout=0.0 data.source=text data.vocab_size=290 data.tokens_per_batch=400
    data.packing=False data.num_buckets=2 optimizer.schedule=constant optimizer.learning_rate=0.01
    optimizer.warmup_steps=5 train.num_steps=30 train.eval_every=15 train.checkpoint_every=15
    train.log_every=5 search.extra_length=5
""".split()


def environment():
    """A user's, on one device; but compiled in haste, as most of the suite is."""
    ours = dict(PYTHONPATH=str(ROOT), XLA_FLAGS=xla_flags(), JAX_PLATFORMS="cpu")
    return os.environ | ours | dict(JAX_DISABLE_MOST_OPTIMIZATIONS="1")


def heed(command, *args, stdin="", env=()):
    """Run `python -m experiments.<command>` as a user would; rc, stdout, stderr."""
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{command}", *map(str, args)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env=environment() | dict(env),
        cwd=ROOT,
        timeout=300,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def refused(command, *args, stdin=""):
    """The one line of a mistake, which ends with status 1 and no traceback."""
    code, out, err = heed(command, *args, stdin=stdin)
    assert code == 1 and out == "", (code, out, err)
    (line,) = (line for line in err.splitlines() if line.startswith("heed: error: "))
    assert "Traceback" not in err
    return line


def train_args(data, workdir, *changes):
    config = "--config=experiments/configs/text.py"
    values = [f"--config.{c}" for c in (*SMALL, f"data.path={data}", *changes)]
    return config, f"--workdir={workdir}", *values


def small_experiment(data, **train):
    """The same experiment for a call of ours."""
    _, _, *values = train_args(data, "")
    tree = default_config()
    for name, value in (v.removeprefix("--config.").split("=") for v in values):
        group, name = name.split(".")
        kind = type(tree[group][name])
        parse = {bool: "True".__eq__, int: lambda v: int(float(v)), float: float}
        tree[group][name] = parse.get(kind, kind)(value)
    tree.train.update(train)
    return to_experiment(tree)
