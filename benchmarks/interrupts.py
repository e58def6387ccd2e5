"""Ctrl-C at many times in every command: one line of JSON per time.

    python -m benchmarks.interrupts [--commands=train,translate] [--every=0.25]

{"command", "seconds": time from start to SIGINT, "exit_status",
"last_stderr_line", "failure": "" or its description}. A command must exit with 130, one line and no
traceback, or finish and exit with 0. It leaves no temporary file, and its output is complete or
absent. Every tenth interrupted training is resumed and must finish. Exits with 1 on any failure.
The commands use this machine's CPU and a tiny run that is trained first. The start of Python
itself, about 20 ms, is excluded.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from absl import app, flags

from experiments.float_flags import define_float

COMMANDS = flags.DEFINE_list("commands", [], "Commands to interrupt; default: all.")
EVERY = define_float("every", 0.25, "Seconds between two times.", 0.001)
FIRST = define_float("first", 0.1, "Seconds to the first time.", 0.0)
LIMIT = define_float("limit", 60.0, "Maximum seconds to the last time.", 0.0)
ROOT = Path(__file__).parent.parent
SENTENCES = "I am a student.\nThe teacher reads the book.\n" * 20


class Command(NamedTuple):
    """A command and the path of its output, which must be complete or absent."""

    arguments: tuple[str, ...]
    output: Path | None = None
    resumes: bool = False


def main(_) -> None:
    """Interrupt the commands of the flags."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # an ignored SIGINT would be inherited
    with tempfile.TemporaryDirectory() as folder:
        choices = commands(Path(folder))
        failures = 0
        for name in COMMANDS.value or choices:
            failures += sweep(name, choices[name])
    sys.exit(1 if failures else 0)


def commands(folder: Path) -> dict[str, Command]:
    """All commands by name, on a run that this function trains."""
    run, text = folder / "run", folder / "text.txt"
    text.write_text(SENTENCES, "utf-8")
    workdir, config = f"--workdir={run}", "--config=experiments/configs/tiny.py"
    # The norm that Marian supports.
    wait(start(("train", config, workdir, "--config.model.norm=post")))
    exported = folder / "exported"
    wait(start(("export_model", workdir, "--to=huggingface", f"--output={exported}")))
    output, files = folder / "new", (f"--source={text}", f"--target={text}")
    launch = ("pod.local", "--num_processes=2", "--", config, f"--workdir={output}")
    return {
        "train": Command(("train", config, f"--workdir={output}"), output, True),
        "local": Command(launch, output, True),
        "translate": Command(
            ("translate", workdir, f"--input={text}", f"--output={output}"), output
        ),
        "evaluate": Command(("evaluate", workdir, "--split=test")),
        "score": Command(("score", workdir, *files)),
        "bleu": Command(("bleu", f"--output={text}", f"--reference={text}")),
        "attention": Command(
            ("attention", workdir, "--text=I am a student.", f"--output={output}")
        ),
        "inspect_data": Command(("inspect_data", config)),
        "report": Command(("report", workdir, f"--output={output}"), output),
        "export_model": Command(
            ("export_model", workdir, "--to=stablehlo", f"--output={output}"), output
        ),
        "import_model": Command(
            ("import_model", f"--from={exported}", f"--workdir={output}"), output
        ),
        "serve": Command(("serve", workdir, "--port=0")),
    }


def start(arguments: tuple[str, ...]) -> subprocess.Popen:
    """Start the command."""
    name, *rest = arguments
    return subprocess.Popen(
        [sys.executable, "-m", f"experiments.{name}", *rest],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


def wait(process: subprocess.Popen) -> tuple[int, str]:
    """Exit status and stderr of a finished process. Raises RuntimeError if it failed."""
    _, err = process.communicate(timeout=600)
    if process.returncode:
        raise RuntimeError(err)
    return process.returncode, err


def sweep(name: str, command: Command) -> int:
    """Interrupt a command later each time, until it finishes first; return the failures."""
    failures, seconds, attempts = 0, FIRST.value, 0
    while seconds < LIMIT.value:
        _remove(command.output)
        process = start(command.arguments)
        time.sleep(seconds)
        finished = process.poll() is not None
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
        problem = find_problem(command, process.returncode, out, err)
        if not problem and command.resumes and attempts % 10 == 0:
            problem = _resume(command)
        last_line = (err.strip().splitlines() or [""])[-1]
        report = {
            "command": name,
            "seconds": round(seconds, 3),
            "exit_status": process.returncode,
            "last_stderr_line": last_line,
            "failure": problem,
        }
        print(json.dumps(report, ensure_ascii=False), flush=True)
        failures += bool(problem)
        if finished:
            break
        seconds, attempts = seconds + EVERY.value, attempts + 1
    _remove(command.output)
    return failures


def find_problem(command: Command, status: int, out: str, err: str) -> str:
    """A description of the failure, or an empty string."""
    lines = [line for line in err.splitlines() if "heed: interrupted" in line]
    if "KeyboardInterrupt" in err and "experiments" not in err:
        return ""  # during the start of Python itself
    for marker in "Traceback", "Exception ignored", "Fatal", "leaked", "heed: error":
        if marker in err:
            return f"{marker}: {err[-2000:]}"
    if status not in (0, 130):
        return f"exit status {status}: {err[-2000:]}"
    if status == 130 and len(lines) != 1:
        return f"{len(lines)} lines: {err[-2000:]}"
    if command.output is None:
        return ""
    leftovers = [path.name for path in command.output.parent.glob(f".{command.output.name}.*")]
    if command.output.is_dir():
        leftovers += [str(path) for path in command.output.rglob(".*") if path.is_file()]
    if leftovers:
        return f"temporary files: {leftovers}"
    trained = "checkpoint saved" in err or "is complete" in err
    if status == 130 and command.output.exists() and not trained:
        removed = not command.resumes and "interrupted" in err
        names = sorted(path.name for path in command.output.rglob("*"))
        return "" if removed and not names else f"partial output: {names}"
    return ""


def _resume(command: Command) -> str:
    process = start(command.arguments)
    _, err = process.communicate(timeout=600)
    return "" if process.returncode == 0 else f"resumed: {err[-2000:]}"


def _remove(output: Path | None) -> None:
    remove: Callable = shutil.rmtree if output and output.is_dir() else os.unlink
    if output and output.exists():
        remove(output)


if __name__ == "__main__":
    app.run(main)
