"""Full disks, few file descriptors, a changed clock: cases of fault injection."""

import json
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.corruption import mounted

_FEW_SAVES = "train.log_every=1 train.checkpoint_every=200 train.eval_every=200".split()
_TIMEOUT_SECONDS = 300  # timeout of a run that hangs
# Written to sitecustomize.py, which Python imports when its folder is on PYTHONPATH.
_CLOCK = """
import time
real, start = time.time, time.monotonic()
time.time = lambda: real() - (400 * 24 * 3600 if time.monotonic() - start > {seconds} else 0)
"""

Case = tuple[str, str, str]


class Resources:
    """Runs that lack a resource; each must continue, or end with a one-line error."""

    def __init__(self, cases):
        self.cases = cases

    def all(self) -> Iterator[Case]:
        """Yield (case, outcome, difference) for every case."""
        yield self.full_tensorboard_disk()
        for size in "40k", "100k", "300k":
            yield self.full_workdir_disk(size)
        yield self.full_disk_after_training()
        yield self.full_stderr()
        for files in 16, 24, 32, 40, 48:
            yield self.open_file_limit(files)
        for seconds in 3, 6:
            yield self.clock_change(seconds)

    def full_tensorboard_disk(self) -> Case:
        """The TensorBoard folder is on a separate disk, which fills."""
        case, folder = "only tensorboard/ on a full disk", self._folder("logs")
        folder.mkdir()
        try:
            with mounted(folder / "tensorboard", "size=4k"):
                code, err, out = self._end(self.cases.start(folder))
                if _succeeded(code, out, err, warning="tensorboard"):
                    return case, _outcome(code, err), self.cases.difference(folder)
                return case, _outcome(code, err), "the run"
        except OSError as error:
            return case, "", f"not tried: {error}"

    def full_workdir_disk(self, size: str) -> Case:
        """The workdir is on a disk that fills long before the first checkpoint."""
        case = f"a full disk of {size}, with few checkpoints"
        try:
            with mounted(self._folder(f"disk{size}"), f"size={size}"):
                process = self.cases.start(self._folder(f"disk{size}") / "run", *_FEW_SAVES)
                code, err, _ = self._end(process)
        except OSError as error:
            return case, "", f"not tried: {error}"
        reported = code == 1 and "Traceback" not in err and "disk is full" in _last_line(err)
        return case, _outcome(code, err), "nothing" if reported else "a clear message"

    def full_disk_after_training(self) -> Case:
        """The disk fills after the last checkpoint: later files cannot be written."""
        case, mount = "a disk that fills after the last checkpoint", self._folder("late")
        try:
            with mounted(mount, "size=20m"):
                process = self.cases.start(mount / "run")
                while process.poll() is None and not _is_saved(mount / "run", 200):
                    time.sleep(0.002)
                with (mount / "fill").open("wb", buffering=0) as file:
                    _fill(file)
                code, err, out = self._end(process)
        except OSError as error:
            return case, "", f"not tried: {error}"
        written = _succeeded(code, out, err, warning="report.html")
        return case, _outcome(code, err), "nothing" if written else "the end of the run"

    def full_stderr(self) -> Case:
        """Standard error goes to a full disk."""
        folder = self._folder("silent")
        with Path("/dev/full").open("w", encoding="utf-8") as device:
            process = self.cases.start(folder, stderr=device)
            code, err, _ = self._end(process)
        difference = self.cases.difference(folder) if code == 0 else f"exit status {code}"
        return "standard error on a full disk", _outcome(code, err), difference

    def open_file_limit(self, files: int) -> Case:
        """A limit on open files that a save exceeds."""
        folder, limit = self._folder(f"files{files}"), (files, files)
        process = self.cases.start(folder)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limit)
        code, err, _ = self._end(process)
        case = f"at most {files} open files"
        if code == 0:
            return case, "exit 0", self.cases.difference(folder)
        reported = code == 1 and "Traceback" not in err and "heed: error: " in _last_line(err)
        return case, _outcome(code, err), "nothing" if reported else "a clear message"

    def clock_change(self, seconds: int) -> Case:
        """The system clock is set back by 400 days during the run."""
        hook, folder = self._folder(f"hook{seconds}"), self._folder(f"clock{seconds}")
        hook.mkdir()
        (hook / "sitecustomize.py").write_text(_CLOCK.format(seconds=seconds))
        path = os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")])
        code, err, _ = self._end(self.cases.start(folder, environment={"PYTHONPATH": path}))
        difference = self.cases.difference(folder) if code == 0 else f"exit status {code}"
        return f"a clock set back by 400 days after {seconds} s", _outcome(code, err), difference

    def _folder(self, name: str) -> Path:
        return self.cases.folder / name

    def _end(self, process: subprocess.Popen) -> tuple[int | str, str, str]:
        """Exit status ("none" for a process that hangs), stderr and stdout."""
        try:
            out, err = process.communicate(timeout=_TIMEOUT_SECONDS)
            return process.returncode, (err or "").replace(str(self.cases.folder), ""), out
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return "none", f"it hung for {_TIMEOUT_SECONDS} s", ""


def _succeeded(code: int | str, out: str, err: str, warning: str) -> bool:
    """Whether a run succeeded, with its JSON line and a warning that names this file."""
    if code or "Traceback" in err or not out:
        return False
    warnings = [line for line in err.splitlines() if line.startswith("warning: ")]
    return json.loads(out)["step"] == 200 and any(warning in line for line in warnings)


def _outcome(code: int | str, err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith(("warning: ", "heed: "))]
    return f"exit {code}: {'; '.join(lines) or _last_line(err)}"


def _last_line(err: str) -> str:
    return (err.strip().splitlines() or [""])[-1]


def _is_saved(folder: Path, step: int) -> bool:
    return (folder / "checkpoints" / str(step) / "digests.json").exists()


def _fill(file) -> None:
    try:
        while file.write(bytes(4096)):
            pass
    except OSError:
        return
