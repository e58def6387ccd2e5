"""Checkpoints on disk, saved in the background: atomic writes; keeps the last few and the best.

Only this module and train/checkpoint_items.py use Orbax. Each step has a folder with the
parameters, the rest of the state, the moving average if there is one, `meta` (JSON, for the caller
to compare with its expectations) and the metrics by which "best" ranks. The folder is renamed to
its final name after its last byte is written, so a listed checkpoint is complete.
"""

import gc
import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from train import checkpoint_items
from train.checkpoint_spec import CheckpointError, CheckpointSpec, ResolvedCheckpoint, resolve
from train.checksums import ChecksumWriter, verify_checksums
from train.multihost import broadcast_from_primary, is_primary, run_on_all, run_on_primary
from train.orbax_errors import disk_is_full, first_line, silence_orbax
from train.state import TrainState

_UNFINISHED = "*.orbax-checkpoint-tmp"


class CorruptCheckpointError(CheckpointError):
    """A checkpoint that exists but is corrupt: it differs from what was written."""


class CheckpointManager:
    """Save, list and restore the checkpoints of one folder; the first save creates the folder.

    The last `keep` checkpoints are kept, and the `keep_best` with the highest `best_metric`; both
    are read from disk, so a restart finds them. Methods raise CheckpointError. All processes call
    the same methods, and each writes and reads the shards of its devices; the number of processes
    may differ between saving and restoring.
    """

    def __init__(
        self, folder: str | Path, keep: int = 3, keep_best: int = 1, best_metric: str = "bleu"
    ):
        self.folder = Path(folder).absolute()
        self.best_metric = best_metric
        self._keep, self._keep_best = keep, keep_best
        self._orbax: Any = None  # Orbax's checkpointer, created by the first save
        self._signing: ChecksumWriter | None = None  # of the latest saved step
        silence_orbax()

    def save(
        self, step: int, state: TrainState, meta: dict, metrics: dict[str, float] | None = None
    ) -> None:
        """Copy the state and write it in the background; the state may be donated at once.

        Waits for a previous save that is still running, and raises its error if it failed.
        """
        self.wait()
        parts = checkpoint_items.parts(state) | {"meta": meta}
        scored = metrics is not None and self.best_metric in metrics
        with self._reraise_in_one_line(f"cannot save step {step}"):
            if self._orbax is None:  # only a writer may clean up
                run_on_primary(self._quarantine)
                self._orbax = self._open()
            self._orbax.save_checkpointables_async(
                step, parts, metrics=metrics if scored else None, force=True, overwrite=True
            )
            if is_primary():
                self._signing = ChecksumWriter(self.folder / str(step))

    def restore(self, spec: CheckpointSpec, abstract_state: TrainState) -> TrainState:
        """Restore the saved state, bit for bit, with the shardings of `abstract_state`.

        The mesh may differ from that of the save. `base` is not stored: it is returned as given.
        """
        loaded = self._load(spec, checkpoint_items.parts(abstract_state))
        rest = loaded.pop("rest")
        return abstract_state._replace(**rest, **loaded)

    def restore_latest_intact(
        self, abstract_state: TrainState, among: Sequence[int] | None = None
    ) -> tuple[TrainState, dict, list[str]]:
        """Restore the newest intact checkpoint: its state, its `meta`, one line per corrupt one.

        Only the steps in `among` are tried, if it is given. Raises CorruptCheckpointError if no
        checkpoint is intact, and CheckpointError if there are none.
        """
        unlisted = [str(folder) for folder in self._unlisted()]
        steps, unlisted, not_folders = broadcast_from_primary(
            [self.steps(), unlisted, self._no_folders()]
        )
        corrupt = [
            f"{path} has unreadable metrics; the next save sets it aside" for path in unlisted
        ]
        corrupt += [f"{path} is not a folder, so it is no checkpoint" for path in not_folders]
        for step in sorted(steps if among is None else among, reverse=True):
            if str(self.folder / str(step)) in unlisted:
                continue
            try:
                return self.restore(step, abstract_state), self.meta(step), corrupt
            except CorruptCheckpointError as error:
                corrupt.append(str(error))
        if not corrupt:
            raise CheckpointError(f"{self.folder}: no checkpoints")
        raise CorruptCheckpointError(f"{self.folder}: no checkpoint is whole: {'; '.join(corrupt)}")

    def restore_params(
        self,
        spec: CheckpointSpec,
        abstract_params: Any,
        transform: Callable[[Any], Any] = lambda x: x,
    ) -> Any:
        """Restore weights for decoding: one checkpoint, or a mean (train/checkpoint_spec.py).

        `transform` converts the stored parameters to those that decoding takes, before averaging.
        """
        steps, part = self.resolve(spec)
        total = None
        for step in steps:
            has_ema = (self.folder / str(step) / "ema").exists()
            name = part or ("ema" if has_ema else "params")
            params = transform(self._load(step, {name: abstract_params})[name])
            total = params if total is None else jax.tree.map(jnp.add, total, params)
        return total if len(steps) == 1 else jax.tree.map(lambda x: x / len(steps), total)

    def meta(self, spec: CheckpointSpec) -> dict:
        """The `meta` that the checkpoint was saved with."""
        return self._load(spec, {"meta": None})["meta"]

    def metrics(self, spec: CheckpointSpec) -> dict[str, float] | None:
        """The metrics that the checkpoint was saved with, if they include `best_metric`."""
        return self._measured(self._one(spec))

    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        folders = (path for path in self.folder.iterdir() if path.is_dir())
        return sorted(int(path.name) for path in folders if path.name.isdecimal())

    def best_step(self) -> int | None:
        """The step with the highest `best_metric`, the latest of equals; None if none has it."""
        return next(iter(self._ranked()), None)

    def unranked(self) -> list[int]:
        """The steps whose metrics are lost, so that "best" ignores them."""
        lost = lambda step: checkpoint_items.lost_metrics(self.folder / str(step), self.best_metric)  # noqa: E731
        return [step for step in self.steps() if lost(step)]

    def best_first(self) -> list[int]:
        """All steps, highest `best_metric` first; then those without it, newest first."""
        ranked = self._ranked()
        return ranked + [step for step in reversed(self.steps()) if step not in ranked]

    def delete_after(self, step: int) -> None:
        """Remove the checkpoints of all steps after `step`."""
        self.close()

        def remove_later() -> None:
            for later in self.steps():
                if later > step:
                    # Renamed first: a partly removed folder must not be listed as a checkpoint.
                    partial = self.folder / f"{later}{_UNFINISHED[1:]}"
                    (self.folder / str(later)).rename(partial)
                    shutil.rmtree(partial)

        run_on_primary(remove_later)

    def wait(self) -> None:
        """Wait until all saves are on disk."""
        if self._orbax is not None:
            with self._reraise_in_one_line("cannot finish the last save"):
                self._orbax.wait()
                self._sign()

    def close(self) -> None:
        """Wait for all saves, and close Orbax's checkpointer."""
        orbax, self._orbax = self._orbax, None
        if orbax is not None:
            with self._reraise_in_one_line("cannot finish the last save"):
                orbax.close()
                self._sign()

    def _sign(self) -> None:
        signing, self._signing = self._signing, None
        if signing is not None:
            signing.finish()

    def __enter__(self) -> "CheckpointManager":
        return self

    def __exit__(self, kind, *_) -> None:
        if kind and jax.process_count() > 1:
            return  # Orbax would wait for the other processes, which may not have failed
        # An error that is already being raised takes precedence.
        with suppress(CheckpointError) if kind else nullcontext():
            self.close()

    def _quarantine(self) -> None:
        for corrupt in self._unlisted():
            names = (f"{corrupt.name}.corrupt{f'.{n}' * (n > 1)}" for n in itertools.count(1))
            corrupt.rename(next(p for p in map(corrupt.with_name, names) if not p.exists()))

    def _unlisted(self) -> list[Path]:
        """Folders of checkpoints with unreadable metrics, which Orbax cannot list."""
        unread = [step for step in self.steps() if self._measured(step) is None]
        folders = [self.folder / str(step) for step in unread]
        return [folder for folder in folders if (folder / "metrics").is_dir()]

    def _no_folders(self) -> list[str]:
        """Files and dangling links that are named like a step."""
        entries = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(str(p) for p in entries if p.name.isdecimal() and not p.is_dir())

    def _measured(self, step: int) -> dict[str, float] | None:
        return checkpoint_items.metrics(self.folder / str(step), self.best_metric)

    def _open(self) -> ocp.training.Checkpointer:
        policies = ocp.training.preservation_policies
        latest = policies.LatestN(self._keep)
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[self.best_metric],
            n=self._keep_best,
            keep_checkpoints_without_metrics=False,
        )
        return ocp.training.Checkpointer(
            self.folder,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy([latest, best]),
            cleanup_tmp_directories=True,
        )

    def resolve(self, spec: CheckpointSpec) -> ResolvedCheckpoint:
        """Resolve a checkpoint name to steps and weights (train/checkpoint_spec.py)."""
        try:
            return resolve(spec, self.steps(), self._ranked())
        except CheckpointError as error:
            raise CheckpointError(f"{self.folder}: {error}") from None

    def _one(self, spec: CheckpointSpec) -> int:
        steps = self.resolve(spec).steps
        if len(steps) > 1:
            raise CheckpointError(f"{self.folder}: only weights have an average, not {spec}")
        return steps[0]

    def _ranked(self) -> list[int]:
        """The steps with a score, best first, the latest first among equals."""
        measured = ((self._measured(step), step) for step in self.steps())
        scored = [(metrics[self.best_metric], step) for metrics, step in measured if metrics]
        return [step for _, step in sorted(scored, reverse=True)]

    def _load(self, spec: CheckpointSpec, abstract: dict[str, Any]) -> dict[str, Any]:
        self.wait()
        step = self._one(spec)
        other_steps = ", ".join(str(other) for other in self.steps() if other != step)
        failure = f"step {step} is corrupt" + f" (there are also {other_steps})" * bool(other_steps)
        with self._reraise_in_one_line(failure, CorruptCheckpointError):
            path = self.folder / str(step)
            run_on_primary(lambda: verify_checksums(path, [*abstract, "metrics"]))

            def check() -> None:
                checkpoint_items.check_folders(path, abstract)
                stored = ocp.checkpointables_metadata(path).metadata
                # Parts that every checkpoint has are checked first: rest, params, then ema.
                for name in sorted(abstract.keys() - {"meta"}, reverse=True):
                    checkpoint_items.check(
                        f"{self.folder}, step {step}", name, stored, abstract[name]
                    )

            run_on_all(check)
            targets = jax.tree.map(checkpoint_items.with_default_sharding, abstract)
            return run_on_all(lambda: ocp.load_checkpointables(path, targets))

    @contextmanager
    def _reraise_in_one_line(self, failure: str, kind: type = CheckpointError) -> Iterator[None]:
        """Convert any error of Orbax, also of its threads, into an error of one line."""
        reason = None
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:
            reason, no_space = first_line(error), disk_is_full(error)
        if reason is None:
            return
        self._abandon()
        if no_space:  # the unfinished save takes up space
            self._remove_partial()
            reason = "the disk is full; free some space and run again to resume"
        raise kind(f"{self.folder}: {failure}: {reason}")

    def _remove_partial(self) -> None:
        """Remove unfinished saves; Orbax's threads may still write to a removed one."""
        quiet = 0
        for _ in range(50):
            unfinished = list(self.folder.glob(_UNFINISHED))
            quiet = 0 if unfinished else quiet + 1
            if quiet == 3:
                return
            for folder in unfinished:
                shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.1)

    def _abandon(self) -> None:
        """Discard Orbax after an error, which it would repeat; the next save starts a new one."""
        orbax, self._orbax = self._orbax, None
        with suppress(Exception):
            self._sign()
        with suppress(Exception):
            if jax.process_count() == 1:  # it would wait for the other processes
                orbax.close()
        gc.collect()  # while `silence_orbax` is in effect
