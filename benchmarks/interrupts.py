"""Ctrl-C at many moments of every command: one line of JSON per moment.

    python -m benchmarks.interrupts [--commands=train,translate] [--every=0.25]

{"command", "seconds": when SIGINT was sent after its start, "status", "said": its last line,
"wrong": "" or what is not as it should be}. Each ends with 130 and one line and no traceback, or
had done all and ends with 0; it leaves no temporary file, and its output is whole or not there. An
interrupted training is started again at every tenth moment and must come to its end.
Exits with 1 where something was wrong. The commands use this machine's CPU and a tiny run that is
trained first; Python's own start, of some 20 ms, is left out.
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

COMMANDS = flags.DEFINE_list("commands", [], "Which ones; default: all.")
EVERY = define_float("every", 0.25, "Seconds from one moment to the next.", 0.001)
FIRST = define_float("first", 0.1, "Seconds to the first moment.", 0.0)
LIMIT = define_float("limit", 60.0, "Seconds to the last moment at most.", 0.0)
ROOT = Path(__file__).parent.parent
SENTENCES = "I am a student.\nThe teacher reads the book.\n" * 20


class Command(NamedTuple):
    """A command and where its output goes, which must be whole or not there."""

    arguments: tuple[str, ...]
    output: Path | None = None
    resumes: bool = False


def main(_) -> None:
    """Interrupt the commands of the flags."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # if ignored, it would be in them too
    with tempfile.TemporaryDirectory() as folder:
        known = commands(Path(folder))
        wrong = 0
        for name in COMMANDS.value or known:
            wrong += sweep(name, known[name])
    sys.exit(1 if wrong else 0)


def commands(folder: Path) -> dict[str, Command]:
    """All commands by name, on a run that is trained here."""
    run, text = folder / "run", folder / "text.txt"
    text.write_text(SENTENCES, "utf-8")
    here, config = f"--workdir={run}", "--config=experiments/configs/tiny.py"
    ended(start(("train", config, here, "--config.model.norm=post")))  # which Marian has
    exported = folder / "exported"
    ended(start(("export_model", here, "--to=huggingface", f"--output={exported}")))
    new, files = folder / "new", (f"--source={text}", f"--target={text}")
    several = ("pod.local", "--num_processes=2", "--", config, f"--workdir={new}")
    return {
        "train": Command(("train", config, f"--workdir={new}"), new, True),
        "local": Command(several, new, True),
        "translate": Command(("translate", here, f"--input={text}", f"--output={new}"), new),
        "evaluate": Command(("evaluate", here, "--split=test")),
        "score": Command(("score", here, *files)),
        "bleu": Command(("bleu", f"--output={text}", f"--reference={text}")),
        "attention": Command(("attention", here, "--text=I am a student.", f"--output={new}")),
        "inspect_data": Command(("inspect_data", config)),
        "report": Command(("report", here, f"--output={new}"), new),
        "export_model": Command(("export_model", here, "--to=stablehlo", f"--output={new}"), new),
        "import_model": Command(("import_model", f"--from={exported}", f"--workdir={new}"), new),
        "serve": Command(("serve", here, "--port=0")),
    }


def start(arguments: tuple[str, ...]) -> subprocess.Popen:
    """The command, begun."""
    name, *rest = arguments
    return subprocess.Popen(
        [sys.executable, "-m", f"experiments.{name}", *rest],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT, text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """Its status, and what it said on stderr. Raises where it has not ended well."""
    _, err = process.communicate(timeout=600)
    if process.returncode:
        raise RuntimeError(err)
    return process.returncode, err


def sweep(name: str, command: Command) -> int:
    """Interrupt it later and later until it ends before that; how often something was wrong."""
    wrong, seconds, tried = 0, FIRST.value, 0
    while seconds < LIMIT.value:
        _remove(command.output)
        process = start(command.arguments)
        time.sleep(seconds)
        over = process.poll() is not None
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
        found = complaint(command, process.returncode, out, err)
        if not found and command.resumes and tried % 10 == 0:
            found = _resumed(command)
        said = (err.strip().splitlines() or [""])[-1]
        told = dict(command=name, seconds=round(seconds, 3), status=process.returncode, said=said)
        print(json.dumps(told | {"wrong": found}, ensure_ascii=False), flush=True)
        wrong += bool(found)
        if over:
            break
        seconds, tried = seconds + EVERY.value, tried + 1
    _remove(command.output)
    return wrong


def complaint(command: Command, status: int, out: str, err: str) -> str:
    """What is not as it should be, or nothing."""
    told = [line for line in err.splitlines() if "heed: interrupted" in line]
    if "KeyboardInterrupt" in err and "experiments" not in err:
        return ""  # amid Python's own start
    for sign in "Traceback", "Exception ignored", "Fatal", "leaked", "heed: error":
        if sign in err:
            return f"{sign}: {err[-2000:]}"
    if status not in (0, 130):
        return f"exit status {status}: {err[-2000:]}"
    if status == 130 and len(told) != 1:
        return f"{len(told)} lines: {err[-2000:]}"
    if command.output is None:
        return ""
    left = [path.name for path in command.output.parent.glob(f".{command.output.name}.*")]
    if command.output.is_dir():
        left += [str(path) for path in command.output.rglob(".*") if path.is_file()]
    if left:
        return f"left behind: {left}"
    trained = "checkpoint saved" in err or "is complete" in err
    if status == 130 and command.output.exists() and not trained:
        whole = not command.resumes and "interrupted" in err
        there = sorted(path.name for path in command.output.rglob("*"))
        return "" if whole and not there else f"half of its output: {there}"
    return ""


def _resumed(command: Command) -> str:
    process = start(command.arguments)
    _, err = process.communicate(timeout=600)
    return "" if process.returncode == 0 else f"started again: {err[-2000:]}"


def _remove(output: Path | None) -> None:
    remove: Callable = shutil.rmtree if output and output.is_dir() else os.unlink
    if output and output.exists():
        remove(output)


if __name__ == "__main__":
    app.run(main)
