"""Runs commands as a user would."""

import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from experiments.config_io import default_config, to_experiment
from tests.experiments import forks
from tests.xla_for_tests import xla_flags

ROOT = Path(__file__).parent.parent.parent
WORDS = {"red": "rot", "green": "grün", "one": "eins", "two": "zwei", "cat": "Katze", "dog": "Hund"}
SMALL = """
    model.encoder_layers=1 model.decoder_layers=1 model.d_model=32 model.d_ff=64 model.num_heads=2
    model.dropout=0.0 data.kind=text data.vocab_size=290 data.tokens_per_batch=400
    data.packing=False data.num_buckets=2 optimizer.schedule=constant optimizer.learning_rate=0.01
    optimizer.warmup_steps=5 train.num_steps=30 train.eval_every=15 train.checkpoint_every=15
    train.log_every=5 search.max_length_offset=5
""".split()


def environment():
    """A user's environment with one device, but without XLA optimizations, for speed."""
    overrides = dict(PYTHONPATH=str(ROOT), XLA_FLAGS=xla_flags(), JAX_PLATFORMS="cpu")
    return os.environ | overrides | dict(JAX_DISABLE_MOST_OPTIMIZATIONS="1")


@cache
def fork_server():
    """This process's server of tests/experiments/forks.py, and its socket path."""
    path = f"{tempfile.mkdtemp()}/socket"
    command = [sys.executable, forks.__file__, "serve", path]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment())
    for _ in range(1200):
        if os.path.exists(path) or server.poll() is not None:
            break
        time.sleep(0.1)
    return server, path


def stop_fork_server():
    if fork_server.cache_info().currsize:
        server, path = fork_server()
        server.communicate()
        os.unlink(path)
        os.rmdir(os.path.dirname(path))


def heed(command, *args, stdin="", env=()):
    """Runs `python -m experiments.<command>`; returns its exit status, stdout and stderr."""
    arguments = ["-m", f"experiments.{command}", *map(str, args)]
    with tempfile.TemporaryFile() as stdin_file, tempfile.TemporaryFile() as out:
        with tempfile.TemporaryFile() as err:
            stdin_file.write(stdin.encode() if isinstance(stdin, str) else stdin)
            stdin_file.seek(0)
            files = [file.fileno() for file in (stdin_file, out, err)]
            variables = environment() | dict(env)
            code = forks.run(fork_server()[1], arguments, str(ROOT), variables, files, timeout=300)
            out.seek(0)
            err.seek(0)
            return code, out.read().decode(), err.read().decode()


def error_line(command, *args, stdin=""):
    """The error line of a command that exits with status 1 and no traceback."""
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
    """The experiment of `train_args`, for calls in this process."""
    _, _, *values = train_args(data, "")
    tree = default_config()
    for name, value in (v.removeprefix("--config.").split("=") for v in values):
        group, name = name.split(".")
        kind = type(tree[group][name])
        parse = {bool: "True".__eq__, int: lambda v: int(float(v)), float: float}
        tree[group][name] = parse.get(kind, kind)(value)
    tree.train.update(train)
    return to_experiment(tree)
