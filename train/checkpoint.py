"""Checkpoint manager: atomic saves in the background; keeps the last checkpoints and the best.

Only this module and train/checkpoint_items.py use Orbax. Each step has a folder with the
parameters, the rest of the state, the moving average if there is one, `meta` (JSON, for checks by
the caller) and the metrics by which "best" ranks. The folder is renamed to its final name after its
last byte is written, so a listed checkpoint is complete.
"""

import concurrent.futures
import gc
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from train import checkpoint_items
from train.checkpoint_folder import CheckpointFolder
from train.checkpoint_spec import CheckpointError, CheckpointSpec
from train.checksums import ChecksumWriter, verify_checksums
from train.multihost import broadcast_from_primary, is_primary, run_on_all, run_on_primary
from train.orbax_errors import disk_is_full, first_line, silence_orbax
from train.state import TrainState

_UNFINISHED = "*.orbax-checkpoint-tmp"


class SaveError(CheckpointError):
    """A save that failed, perhaps in this process only: others may wait for it."""


class CorruptCheckpointError(CheckpointError):
    """A checkpoint that exists but is corrupt: it differs from what was written."""


class CheckpointManager(CheckpointFolder):
    """Save, list and restore the checkpoints of one folder; the first save creates the folder.

    It retains the last `keep` checkpoints and the `keep_best` with the highest `best_metric`; both
    are read from disk, so they survive a restart. Methods raise CheckpointError. All processes call
    the same methods, and each writes and reads the shards of its devices; the number of processes
    may differ between saving and restoring.
    """

    def __init__(
        self, folder: str | Path, keep: int = 3, keep_best: int = 1, best_metric: str = "bleu"
    ):
        super().__init__(folder, best_metric)
        self._keep, self._keep_best = keep, keep_best
        self._orbax: Any = None  # Orbax's checkpointer, created by the first save
        self._checksum_writer: ChecksumWriter | None = None  # of the latest saved step
        self._orbax_log = silence_orbax()

    def save(
        self, step: int, state: TrainState, meta: dict, metrics: dict[str, float] | None = None
    ) -> None:
        """Copy the state and write it in the background; the state may be donated at once.

        Waits for a previous save that is still running, and raises its error if it failed.
        """
        self.wait()
        items = checkpoint_items.state_items(state) | {"meta": meta}
        has_score = metrics is not None and self.best_metric in metrics
        with self._reraise_in_one_line(f"cannot save step {step}", SaveError):
            if self._orbax is None:  # only a writer may clean up
                run_on_primary(self._quarantine)
                self._orbax = self._open()
            self._orbax_log.errors.clear()
            self._orbax.save_checkpointables_async(
                step, items, metrics=metrics if has_score else None, force=True, overwrite=True
            )
            if is_primary():
                self._checksum_writer = ChecksumWriter(self.folder / str(step))

    def restore(self, spec: CheckpointSpec, abstract_state: TrainState) -> TrainState:
        """Restore the saved state, bit for bit, with the shardings of `abstract_state`.

        The mesh may differ from that of the save. `base` is not stored: it is returned as given.
        """
        items = self._load(spec, checkpoint_items.state_items(abstract_state))
        rest = items.pop("rest")
        return abstract_state._replace(**rest, **items)

    def restore_latest_intact(
        self, abstract_state: TrainState, candidates: Sequence[int] | None = None
    ) -> tuple[TrainState, dict, list[str]]:
        """Restore the newest intact checkpoint: its state, its `meta`, a line per corrupt one.

        Only the steps in `candidates` are tried, if given. Raises CorruptCheckpointError if no
        checkpoint is intact, and CheckpointError if there are none.
        """
        unlisted = [str(folder) for folder in self._unlisted()]
        steps, unlisted, not_folders = broadcast_from_primary(
            [self.steps(), unlisted, self._non_folders()]
        )
        corrupt = [f"{path} has unreadable metrics; the next save renames it" for path in unlisted]
        corrupt += [f"{path} is not a folder and thus not a checkpoint" for path in not_folders]
        for step in sorted(steps if candidates is None else candidates, reverse=True):
            if str(self.folder / str(step)) in unlisted:
                continue
            try:
                return self.restore(step, abstract_state), self.meta(step), corrupt
            except CorruptCheckpointError as error:
                corrupt.append(str(error))
        if not corrupt:
            raise CheckpointError(f"{self.folder}: no checkpoints")
        raise CorruptCheckpointError(
            f"{self.folder}: no checkpoint is intact: {'; '.join(corrupt)}"
        )

    def restore_params(
        self,
        spec: CheckpointSpec,
        abstract_params: Any,
        transform: Callable[[Any], Any] = lambda x: x,
    ) -> Any:
        """Restore weights for decoding: one checkpoint, or a mean (train/checkpoint_spec.py).

        `transform` converts the stored parameters to those that decoding expects, before averaging.
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
        """The `meta` of the checkpoint."""
        return self._load(spec, {"meta": None})["meta"]

    def delete_after(self, step: int) -> None:
        """Remove the checkpoints of all steps after `step`."""
        self.close()

        def remove_later() -> None:
            for later_step in self.steps():
                if later_step > step:
                    # Renamed first: a partly removed folder must not be listed as a checkpoint.
                    partial = self.folder / f"{later_step}{_UNFINISHED[1:]}"
                    (self.folder / str(later_step)).rename(partial)
                    shutil.rmtree(partial)

        run_on_primary(remove_later)

    def wait(self) -> None:
        """Wait until all saves are on disk."""
        if self._orbax is not None:
            with self._reraise_in_one_line("cannot finish the last save", SaveError):
                self._wait_for_orbax(self._orbax)
                self._finish_checksums()

    def raise_if_save_failed(self) -> None:
        """Raise the error of a background save that has failed, without waiting for one."""
        if self._orbax_log.errors:
            self.wait()
        elif self._checksum_writer is not None and self._checksum_writer.failed:
            with self._reraise_in_one_line("cannot finish the last save", SaveError):
                self._finish_checksums()

    def close(self) -> None:
        """Wait for all saves, and close Orbax's checkpointer."""
        orbax, self._orbax = self._orbax, None
        if orbax is not None:
            with self._reraise_in_one_line("cannot finish the last save", SaveError):
                self._wait_for_orbax(orbax)
                orbax.close()
                self._finish_checksums()

    def _wait_for_orbax(self, orbax: ocp.training.Checkpointer) -> None:
        """Wait for Orbax's saves; of several processes, one that fails raises its error at once.

        Orbax's own wait would last until a timeout of minutes: each process would be at a barrier
        that the other one never reaches.
        """
        if jax.process_count() == 1:
            return orbax.wait()
        waiting: Future[None] = Future()

        def wait() -> None:
            try:
                waiting.set_result(orbax.wait())
            except BaseException as error:
                waiting.set_exception(error)

        threading.Thread(target=wait, daemon=True).start()
        while not concurrent.futures.wait([waiting], timeout=0.1).done:
            if self._orbax_log.errors:
                raise self._orbax_log.errors[0]
        waiting.result()

    def _finish_checksums(self) -> None:
        writer, self._checksum_writer = self._checksum_writer, None
        if writer is not None:
            writer.finish()

    def __enter__(self) -> "CheckpointManager":
        return self

    def __exit__(self, error_type, *_) -> None:
        if error_type and jax.process_count() > 1:
            return  # Orbax would wait for the other processes, which may not have failed
        # An error that is already being raised takes precedence.
        with suppress(CheckpointError) if error_type else nullcontext():
            self.close()

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

    def _load(self, spec: CheckpointSpec, abstract: dict[str, Any]) -> dict[str, Any]:
        self.wait()
        step = self._single_step(spec)
        other_steps = ", ".join(str(s) for s in self.steps() if s != step)
        failure = f"step {step} is corrupt"
        if other_steps:
            failure += f" (other steps: {other_steps})"
        with self._reraise_in_one_line(failure, CorruptCheckpointError):
            path = self.folder / str(step)
            run_on_primary(lambda: verify_checksums(path, [*abstract, "metrics"]))

            def check() -> None:
                checkpoint_items.check_folders(path, abstract)
                stored = ocp.checkpointables_metadata(path).metadata
                # Items that every checkpoint has are checked first: rest, params, then ema.
                for name in sorted(abstract.keys() - {"meta"}, reverse=True):
                    checkpoint_items.check_structure(
                        f"{self.folder}, step {step}", name, stored, abstract[name]
                    )

            run_on_all(check)
            targets = jax.tree.map(checkpoint_items.with_default_sharding, abstract)
            return run_on_all(lambda: ocp.load_checkpointables(path, targets))

    @contextmanager
    def _reraise_in_one_line(
        self, failure: str, error_type: type = CheckpointError
    ) -> Iterator[None]:
        """Convert any error of Orbax and its threads into an error of one line."""
        reason = None
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:
            reason, disk_full = first_line(error), disk_is_full(error)
        if reason is None:
            return
        self._discard_orbax()
        if disk_full:  # the unfinished save takes up space
            self._remove_partial()
            reason = "the disk is full; free some space and run again to resume"
        raise error_type(f"{self.folder}: {failure}: {reason}")

    def _remove_partial(self) -> None:
        """Remove unfinished saves; Orbax's threads may still write to a removed one."""
        empty_checks = 0
        for _ in range(50):
            unfinished = list(self.folder.glob(_UNFINISHED))
            empty_checks = 0 if unfinished else empty_checks + 1
            if empty_checks == 3:
                return
            for folder in unfinished:
                shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.1)

    def _discard_orbax(self) -> None:
        """Discard Orbax after an error, which it would repeat; the next save starts a new one."""
        orbax, self._orbax = self._orbax, None
        with suppress(Exception):
            self._finish_checksums()
        with suppress(Exception):
            if jax.process_count() == 1:  # it would wait for the other processes
                orbax.close()
        gc.collect()  # while `silence_orbax` is in effect
