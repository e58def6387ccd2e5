"""Fault injection in training: one line of JSON per case.

    python -m benchmarks.fault_injection [--kills=10]

{"case": what was done to it, "happened": what it did, "lost": what differs from a run that nothing
befell: "nothing", or what; "not tried" says why not}. Exits with 1 where something was lost.
A small model trains for 200 steps on made-up text, on this machine's CPU, in a temporary folder.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from absl import app, flags

from benchmarks.corruption import DAMAGE, arrays, events, mounted, restored, same, same_state
from benchmarks.multiprocess_faults import Workers
from benchmarks.resources import Resources
from train.checkpoint import CheckpointError
from train.metrics import read_metrics

KILLS = flags.DEFINE_integer("kills", 10, "How many random moments to kill the run at.", 1)
ROOT = Path(__file__).parent.parent
SETTINGS = """
    model.encoder_layers=1 model.decoder_layers=1 model.d_model=32 model.d_ff=64 model.num_heads=4
    model.dropout=0.1 data.vocab_size=300 data.tokens_per_batch=400 data.num_buckets=2
    optimizer.schedule=constant optimizer.learning_rate=0.003 optimizer.warmup_steps=5
    train.num_steps=200 train.eval_every=100 train.checkpoint_every=20 train.log_every=7
    train.bleu_sentences=4 search.max_length_offset=5
""".split()


def main(_) -> None:
    """Run all cases."""
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"  # to restore on
    with tempfile.TemporaryDirectory() as folder:
        cases = Cases(Path(folder))
        failed = 0
        for case, happened, lost in cases.all(KILLS.value):
            print(json.dumps({"case": case, "happened": happened, "lost": lost}), flush=True)
            failed += lost != "nothing" and not lost.startswith("not tried")
        sys.exit(1 if failed else 0)


class Cases:
    """The run that nothing befell, and others beside it."""

    def __init__(self, folder: Path):
        self.folder, self.text = folder, folder / "text"
        _write_text(self.text)
        self.whole = folder / "whole"
        code, _, err = self.end(self.start(self.whole))
        if code:
            raise RuntimeError(f"the run that nothing befell: {err}")

    def all(self, kills: int) -> Iterator[tuple[str, str, str]]:
        """(what was done, what happened, what was lost) of every case."""
        chance = random.Random(0)
        for _ in range(kills):
            yield self.killed(chance)
        yield self.killed_while_saving()
        yield self.terminated()
        for name, damage in DAMAGE.items():
            yield from self.damaged(name, damage)
        for limit, workers in ("size=1m", 1), ("ro", 1), ("size=1m", 2):
            yield self.no_room(limit, workers)
        yield self.other_devices()
        yield self.diverged()
        yield self.locked()
        yield from Resources(self).all()
        yield from Workers(self).all()

    def start(
        self,
        folder: Path,
        *more: str,
        devices: int = 1,
        workers: int = 1,
        environment: dict[str, str] | None = None,
        **options,
    ) -> subprocess.Popen:
        """The command, begun, in one process or by the launcher of several.

        `options` are those of Popen, `environment` what is added to this process's own.
        """
        config = "--config=experiments/configs/text.py"
        values = [f"--config.{s}" for s in (*SETTINGS, f"data.path={self.text}", *more)]
        xla = f"--xla_force_host_platform_device_count={devices}"
        command = ["experiments.train"]
        if workers > 1:
            command = [
                "experiments.pod.local",
                f"--num_processes={workers}",
                "--shutdown_timeout=30",
                "--",
            ]
        own = dict(XLA_FLAGS=xla, JAX_PLATFORMS="cpu") | (environment or {})
        options = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE) | options
        return subprocess.Popen(
            [sys.executable, "-m", *command, config, f"--workdir={folder}", *values],
            cwd=ROOT, text=True, env=os.environ | own, **options,
        )  # fmt: skip

    def end(self, process: subprocess.Popen) -> tuple[int, str, str]:
        """Status, what it said, and the last line of its complaints."""
        out, err = process.communicate(timeout=600)
        return process.returncode, out, (err.strip().splitlines() or [""])[-1]

    def killed(self, chance: random.Random) -> tuple[str, str, str]:
        """SIGKILL soon after a run told of some step, while it trains."""
        folder, told = self.folder / "killed", chance.randrange(7, 190)
        for _ in range(5):
            shutil.rmtree(folder, ignore_errors=True)
            process = self.start(folder)
            while process.poll() is None and _step(folder) < told:
                time.sleep(0.001)
            time.sleep(chance.uniform(0.0, 0.05))
            process.kill()
            process.communicate()
            if process.returncode == -signal.SIGKILL and 200 not in self.steps(folder):
                happened = f"killed after step {_step(folder)}, {self.reached(folder)}; begun again"
                return f"SIGKILL from step {told} on", happened, self.again(folder)
        return f"SIGKILL from step {told} on", "", "not tried: five times the run was over before"

    def killed_while_saving(self) -> tuple[str, str, str]:
        """SIGKILL while a checkpoint has its temporary name."""
        case, folder = "SIGKILL while a checkpoint is written", self.folder / "saving"
        for _ in range(5):
            shutil.rmtree(folder, ignore_errors=True)
            process = self.start(folder)
            while process.poll() is None and not any((folder / "checkpoints").glob("*tmp*")):
                time.sleep(0.0005)
            process.kill()
            process.communicate()
            if torn := [path.name for path in (folder / "checkpoints").glob("*tmp*")]:
                return case, f"left unfinished: {', '.join(torn)}; begun again", self.again(folder)
        return case, "", "not tried: five times no save was under way when the signal came"

    def terminated(self) -> tuple[str, str, str]:
        """SIGTERM amid training."""
        folder = self.folder / "terminated"
        process = self.start(folder)
        while process.poll() is None and not (folder / "checkpoints/40").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        code, out, err = self.end(process)
        if code:
            return "SIGTERM", f"exit {code}: {err}", f"exit status {code}"
        return "SIGTERM", f"exit 0, saved at step {json.loads(out)['step']}", self.again(folder)

    def damaged(self, name: str, damage: Callable[[Path], None]) -> Iterator[tuple[str, str, str]]:
        """Each file of the newest checkpoint in turn, as a restoring run sees it."""
        source = self.whole / "checkpoints"
        newest = max(source.glob("[0-9]*"), key=lambda path: int(path.name))
        for path in sorted(path for path in newest.rglob("*") if path.is_file()):
            file = path.relative_to(source)
            folder = self.folder / "damaged"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(source, folder)
            damage(folder / file)
            step, told = restored(folder, self.whole)
            happened = f"step {step} restored{': ' + told[-1] if told else ''}"
            good = same_state(folder, step, source, self.whole)
            lost = "nothing" if good and (told or step == int(newest.name)) else "its contents"
            yield f"{file} {name}", happened.replace(str(folder), "checkpoints"), lost

    def no_room(self, option: str, workers: int) -> tuple[str, str, str]:
        """A disk that is full, or cannot be written."""
        case = {"ro": "a folder that is read-only when it goes on"}.get(option, "a full disk")
        case += f" under {workers} processes" * (workers > 1)
        mount = self.folder / f"{option.replace('=', '')}-{workers}"
        try:
            with mounted(mount, option) as remount:
                folder = mount / "run"
                few = ["train.num_steps=40"] * (option == "ro")
                process = self.start(folder, *few, workers=workers)
                if option == "ro":
                    self.end(process)
                    remount("ro")
                    process = self.start(folder)
                code, _, err = self.end(process)
                there = self.steps(folder)
                for step in there:  # raises where one is not whole
                    arrays(folder / "checkpoints", step, folder)
        except CheckpointError as error:
            return case, f"exit {code}: {err}", f"a checkpoint: {error}"
        except OSError as error:
            return case, "", f"not tried: {error}"
        told = "heed: error: " in err and code == 1
        happened = f"exit {code}: {err}; whole checkpoints: {there}".replace(str(self.folder), "")
        return case, happened, "nothing" if told else "a clear line"

    def other_devices(self) -> tuple[str, str, str]:
        """A checkpoint of eight devices under fsdp on one, and one of one on four under tensor."""
        happened, lost = [], "nothing"
        eight, one = ("mesh.fsdp=8", 8, (1, 8, 1)), ("mesh.fsdp=1", 1, (1, 1, 1))
        for begun, then in (eight, one), (one, ("mesh.tensor=4", 4, (1, 1, 4))):
            folder = self.folder / f"from{begun[1]}"
            for (mesh, devices, _), steps in zip((begun, then), (40, 60), strict=True):
                command = self.start(folder, f"train.num_steps={steps}", mesh, devices=devices)
                code, _, err = self.end(command)
                happened.append(f"on {devices} with {mesh}: exit {code}, {self.reached(folder)}")
                lost = lost if code == 0 else err
            if lost == "nothing":
                found = (arrays(folder / "checkpoints", 40, folder, m) for *_, m in (begun, then))
                lost = lost if same(*found) else "its bits"
        return "from 8 devices with fsdp to 1, from 1 to 4 with tensor", "; ".join(happened), lost

    def diverged(self) -> tuple[str, str, str]:
        """A learning rate that no model survives."""
        folder = self.folder / "diverged"
        more = "optimizer.learning_rate=1e30", "train.max_rollbacks=1"
        code, _, err = self.end(self.start(folder, *more))
        rollbacks = [event for event in events(folder) if event["split"] == "rollback"]
        told = code == 1 and "training diverged" in err and len(rollbacks) == 1
        return "a learning rate of 1e30", f"exit {code}: {err}", "nothing" if told else "a report"

    def locked(self) -> tuple[str, str, str]:
        """Two runs in one folder."""
        folder = self.folder / "locked"
        first = self.start(folder)
        while first.poll() is None and not (folder / "checkpoints/20").exists():
            time.sleep(0.01)
        code, _, err = self.end(self.start(folder))
        self.end(first)
        happened = f"the second: exit {code}: {err}".replace(str(self.folder), "")
        same = self.difference(folder)
        return "a second run in the folder", happened, same if code == 1 else "the lock"

    def steps(self, folder: Path) -> list[int]:
        """Those that there are checkpoints of, ascending."""
        there = (path.name for path in (folder / "checkpoints").glob("[0-9]*"))
        return sorted(int(name) for name in there if name.isdecimal())

    def reached(self, folder: Path) -> str:
        """How far it came."""
        steps = self.steps(folder)
        return f"its checkpoint of step {steps[-1]}" if steps else "no checkpoint"

    def again(self, folder: Path) -> str:
        """The same command once more; what differs in the end."""
        code, _, err = self.end(self.start(folder))
        return self.difference(folder) if code == 0 else f"the run: {err}"

    def difference(self, folder: Path, whole: Path | None = None) -> str:
        """What is not as in the run that nothing befell: metrics, parameters, optimizer."""
        whole = whole or self.whole
        if events(folder) != events(whole):
            return "metrics"
        mine, its = folder / "checkpoints", whole / "checkpoints"
        return "nothing" if same_state(mine, 200, its, whole) else "parameters or optimizer"


def _step(folder: Path) -> int:
    """The last step that a run told of."""
    told = read_metrics(folder) if (folder / "metrics.jsonl").exists() else []
    return max((event["step"] for event in told), default=0)


def _write_text(folder: Path) -> None:
    folder.mkdir()
    words = {"red": "rot", "green": "grün", "one": "eins", "two": "zwei", "cat": "Katze"}
    chance = random.Random(1)
    for split, count in ("train", 400), ("valid", 8), ("test", 8):
        rows = [chance.choices(list(words), k=chance.randint(2, 6)) for _ in range(count)]
        english = "".join(" ".join(row) + "\n" for row in rows)
        german = "".join(" ".join(words[word] for word in row) + "\n" for row in rows)
        (folder / f"{split}.en").write_text(english, "utf-8")
        (folder / f"{split}.de").write_text(german, "utf-8")


if __name__ == "__main__":
    app.run(main)
