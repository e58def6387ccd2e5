"""Fault injection in training: one line of JSON per case.

    python -m benchmarks.fault_injection [--kills=10]

{"case": the fault, "outcome": the result, "difference": "nothing", or what differs from an
uninterrupted run, or "not tried" and the reason}. Exits with 1 if anything differs.
A small model trains for 200 steps on generated text, on this machine's CPU, in a temporary folder.
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

from benchmarks.corruption import (
    CORRUPTIONS,
    arrays,
    bitwise_equal,
    equal_checkpoints,
    events,
    mounted,
    restore_latest,
)
from benchmarks.multiprocess_faults import Workers
from benchmarks.resources import Resources
from train.checkpoint import CheckpointError
from train.metrics import read_metrics

KILLS = flags.DEFINE_integer("kills", 10, "Number of random times at which to kill the run.", 1)
ROOT = Path(__file__).parent.parent
SETTINGS = """
    model.encoder_layers=1 model.decoder_layers=1 model.d_model=32 model.d_ff=64 model.num_heads=4
    model.dropout=0.1 data.vocab_size=300 data.tokens_per_batch=400 data.num_buckets=2
    optimizer.schedule=constant optimizer.learning_rate=0.003 optimizer.warmup_steps=5
    train.num_steps=200 train.eval_every=100 train.checkpoint_every=20 train.log_every=7
    train.eval_bleu_sentences=4 search.max_length_offset=5
""".split()


def main(_) -> None:
    """Run all cases."""
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"  # for restoring
    with tempfile.TemporaryDirectory() as folder:
        cases = Cases(Path(folder))
        failed = 0
        for case, outcome, difference in cases.all(KILLS.value):
            line = {"case": case, "outcome": outcome, "difference": difference}
            print(json.dumps(line), flush=True)
            failed += difference != "nothing" and not difference.startswith("not tried")
        sys.exit(1 if failed else 0)


class Cases:
    """An uninterrupted reference run, and the runs with faults."""

    def __init__(self, folder: Path):
        self.folder, self.text = folder, folder / "text"
        _write_text(self.text)
        self.reference = folder / "reference"
        code, _, err = self.end(self.start(self.reference))
        if code:
            raise RuntimeError(f"the reference run failed: {err}")

    def all(self, kills: int) -> Iterator[tuple[str, str, str]]:
        """Yield (case, outcome, difference) for every case."""
        rng = random.Random(0)
        for _ in range(kills):
            yield self.killed(rng)
        yield self.killed_while_saving()
        yield self.terminated()
        for name, corrupt_file in CORRUPTIONS.items():
            yield from self.corrupt(name, corrupt_file)
        for limit, workers in ("size=1m", 1), ("ro", 1), ("size=1m", 2):
            yield self.full_disk(limit, workers)
        yield self.changed_devices()
        yield self.diverged()
        yield self.locked()
        yield from Resources(self).all()
        yield from Workers(self).all()

    def start(
        self,
        folder: Path,
        *overrides: str,
        devices: int = 1,
        workers: int = 1,
        environment: dict[str, str] | None = None,
        **options,
    ) -> subprocess.Popen:
        """Start the command in one process, or several through the launcher.

        `options` go to Popen. `environment` is added to this process's environment.
        """
        config = "--config=experiments/configs/text.py"
        values = [f"--config.{s}" for s in (*SETTINGS, f"data.path={self.text}", *overrides)]
        xla = f"--xla_force_host_platform_device_count={devices}"
        command = ["experiments.train"]
        if workers > 1:
            launcher_flags = [f"--num_processes={workers}", "--shutdown_timeout=30"]
            command = ["experiments.pod.local", *launcher_flags, "--"]
        variables = dict(XLA_FLAGS=xla, JAX_PLATFORMS="cpu") | (environment or {})
        options = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE) | options
        return subprocess.Popen(
            [sys.executable, "-m", *command, config, f"--workdir={folder}", *values],
            cwd=ROOT, text=True, env=os.environ | variables, **options,
        )  # fmt: skip

    def end(self, process: subprocess.Popen) -> tuple[int, str, str]:
        """Exit status, stdout, and the last line of stderr."""
        out, err = process.communicate(timeout=600)
        return process.returncode, out, (err.strip().splitlines() or [""])[-1]

    def killed(self, rng: random.Random) -> tuple[str, str, str]:
        """SIGKILL soon after a run logged a random step, while it trains."""
        folder, step = self.folder / "killed", rng.randrange(7, 190)
        for _ in range(5):
            shutil.rmtree(folder, ignore_errors=True)
            process = self.start(folder)
            while process.poll() is None and _step(folder) < step:
                time.sleep(0.001)
            time.sleep(rng.uniform(0.0, 0.05))
            process.kill()
            process.communicate()
            if process.returncode == -signal.SIGKILL and 200 not in self.steps(folder):
                checkpoint = self.latest_checkpoint(folder)
                outcome = f"killed after step {_step(folder)}, {checkpoint}; restarted"
                return f"SIGKILL from step {step} on", outcome, self.resume(folder)
        return f"SIGKILL from step {step} on", "", "not tried: the run ended first, five times"

    def killed_while_saving(self) -> tuple[str, str, str]:
        """SIGKILL while a checkpoint is being written under its temporary name."""
        case, folder = "SIGKILL while a checkpoint is written", self.folder / "saving"
        for _ in range(5):
            shutil.rmtree(folder, ignore_errors=True)
            process = self.start(folder)
            while process.poll() is None and not any((folder / "checkpoints").glob("*tmp*")):
                time.sleep(0.0005)
            process.kill()
            process.communicate()
            if partial := [path.name for path in (folder / "checkpoints").glob("*tmp*")]:
                return case, f"partial save: {', '.join(partial)}; restarted", self.resume(folder)
        return case, "", "not tried: no save was in progress at the signal, five times"

    def terminated(self) -> tuple[str, str, str]:
        """SIGTERM during training."""
        folder = self.folder / "terminated"
        process = self.start(folder)
        while process.poll() is None and not (folder / "checkpoints/40").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        code, out, err = self.end(process)
        if code:
            return "SIGTERM", f"exit {code}: {err}", f"exit status {code}"
        return "SIGTERM", f"exit 0, saved at step {json.loads(out)['step']}", self.resume(folder)

    def corrupt(
        self, name: str, corrupt_file: Callable[[Path], None]
    ) -> Iterator[tuple[str, str, str]]:
        """Corrupt each file of the newest checkpoint in turn, then restore."""
        source = self.reference / "checkpoints"
        newest = max(source.glob("[0-9]*"), key=lambda path: int(path.name))
        for path in sorted(path for path in newest.rglob("*") if path.is_file()):
            file = path.relative_to(source)
            folder = self.folder / "corrupt"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(source, folder)
            corrupt_file(folder / file)
            step, messages = restore_latest(folder, self.reference)
            outcome = f"step {step} restored{': ' + messages[-1] if messages else ''}"
            intact = equal_checkpoints(folder, step, source, self.reference)
            nothing_lost = intact and (messages or step == int(newest.name))
            difference = "nothing" if nothing_lost else "its contents"
            yield f"{file} {name}", outcome.replace(str(folder), "checkpoints"), difference

    def full_disk(self, option: str, workers: int) -> tuple[str, str, str]:
        """A disk that is full or read-only."""
        case = {"ro": "a folder that is read-only on resume"}.get(option, "a full disk")
        if workers > 1:
            case += f" under {workers} processes"
        mount = self.folder / f"{option.replace('=', '')}-{workers}"
        try:
            with mounted(mount, option) as remount:
                folder = mount / "run"
                overrides = ["train.num_steps=40"] if option == "ro" else []
                process = self.start(folder, *overrides, workers=workers)
                if option == "ro":
                    self.end(process)
                    remount("ro")
                    process = self.start(folder)
                code, _, err = self.end(process)
                steps = self.steps(folder)
                for step in steps:  # raises if one is incomplete
                    arrays(folder / "checkpoints", step, folder)
        except CheckpointError as error:
            return case, f"exit {code}: {err}", f"a checkpoint: {error}"
        except OSError as error:
            return case, "", f"not tried: {error}"
        reported = "heed: error: " in err and code == 1
        outcome = f"exit {code}: {err}; complete checkpoints: {steps}"
        difference = "nothing" if reported else "a clear message"
        return case, outcome.replace(str(self.folder), ""), difference

    def changed_devices(self) -> tuple[str, str, str]:
        """Restore a checkpoint of 8 devices (fsdp) on 1, and one of 1 device on 4 (tensor)."""
        outcome, difference = [], "nothing"
        on_eight, on_one = ("mesh.fsdp=8", 8, (1, 8, 1)), ("mesh.fsdp=1", 1, (1, 1, 1))
        for before, after in (on_eight, on_one), (on_one, ("mesh.tensor=4", 4, (1, 1, 4))):
            folder = self.folder / f"from{before[1]}"
            for (mesh, devices, _), steps in zip((before, after), (40, 60), strict=True):
                command = self.start(folder, f"train.num_steps={steps}", mesh, devices=devices)
                code, _, err = self.end(command)
                checkpoint = self.latest_checkpoint(folder)
                outcome.append(f"on {devices} with {mesh}: exit {code}, {checkpoint}")
                difference = difference if code == 0 else err
            if difference == "nothing":
                states = (
                    arrays(folder / "checkpoints", 40, folder, m) for *_, m in (before, after)
                )
                difference = difference if bitwise_equal(*states) else "its bits"
        case = "from 8 devices with fsdp to 1, from 1 to 4 with tensor"
        return case, "; ".join(outcome), difference

    def diverged(self) -> tuple[str, str, str]:
        """A learning rate at which every model diverges."""
        folder = self.folder / "diverged"
        overrides = "optimizer.learning_rate=1e30", "train.max_rollbacks=1"
        code, _, err = self.end(self.start(folder, *overrides))
        rollbacks = [event for event in events(folder) if event["event"] == "rollback"]
        reported = code == 1 and "training diverged" in err and len(rollbacks) == 1
        difference = "nothing" if reported else "a report"
        return "a learning rate of 1e30", f"exit {code}: {err}", difference

    def locked(self) -> tuple[str, str, str]:
        """Two runs in one workdir."""
        folder = self.folder / "locked"
        process = self.start(folder)
        while process.poll() is None and not (folder / "checkpoints/20").exists():
            time.sleep(0.01)
        code, _, err = self.end(self.start(folder))
        self.end(process)
        outcome = f"second run: exit {code}: {err}".replace(str(self.folder), "")
        difference = self.difference(folder)
        return "a second run in the folder", outcome, difference if code == 1 else "the lock"

    def steps(self, folder: Path) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        names = (path.name for path in (folder / "checkpoints").glob("[0-9]*"))
        return sorted(int(name) for name in names if name.isdecimal())

    def latest_checkpoint(self, folder: Path) -> str:
        """A description of the latest checkpoint."""
        steps = self.steps(folder)
        return f"checkpoint of step {steps[-1]}" if steps else "no checkpoint"

    def resume(self, folder: Path) -> str:
        """Run the same command again; return the difference to the reference run."""
        code, _, err = self.end(self.start(folder))
        return self.difference(folder) if code == 0 else f"the run: {err}"

    def difference(self, folder: Path, reference: Path | None = None) -> str:
        """The difference to the reference run: metrics, parameters, optimizer, or "nothing"."""
        reference = reference or self.reference
        if events(folder) != events(reference):
            return "metrics"
        checkpoints, expected = folder / "checkpoints", reference / "checkpoints"
        equal = equal_checkpoints(checkpoints, 200, expected, reference)
        return "nothing" if equal else "parameters or optimizer"


def _step(folder: Path) -> int:
    """The last step that a run logged."""
    logged = read_metrics(folder) if (folder / "metrics.jsonl").exists() else []
    return max((event["step"] for event in logged), default=0)


def _write_text(folder: Path) -> None:
    folder.mkdir()
    translations = {"red": "rot", "green": "grün", "one": "eins", "two": "zwei", "cat": "Katze"}
    rng = random.Random(1)
    for split, count in ("train", 400), ("valid", 8), ("test", 8):
        rows = [rng.choices(list(translations), k=rng.randint(2, 6)) for _ in range(count)]
        english = "".join(" ".join(row) + "\n" for row in rows)
        german = "".join(" ".join(translations[word] for word in row) + "\n" for row in rows)
        (folder / f"{split}.en").write_text(english, "utf-8")
        (folder / f"{split}.de").write_text(german, "utf-8")


if __name__ == "__main__":
    app.run(main)
