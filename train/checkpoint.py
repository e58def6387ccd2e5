"""Checkpoints on disk: saved in the background, complete or absent; the last few and the best.

This module and train/checkpoint_items.py alone know Orbax. In a folder, each step's own folder
holds the parameters, the rest of the state, the moving average if there is one, `meta` (JSON, for
the caller to compare with what it expects) and the metrics that "best" compares. It gets its name
by a rename after its last byte, so a listed checkpoint is complete.
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
from train.checkpoint_spec import CheckpointError, CheckpointSpec, ResolvedCheckpoint, choose
from train.checksums import ChecksumWriter, verify_checksums
from train.multihost import broadcast_from_primary, is_primary, run_on_all, run_on_primary
from train.orbax_errors import disk_is_full, first_line, silence_orbax
from train.state import TrainState

_UNFINISHED = "*.orbax-checkpoint-tmp"


class CorruptCheckpointError(CheckpointError):
    """A checkpoint that is there, but not as it was written."""


class CheckpointManager:
    """The checkpoints of one folder, which need not exist before the first save.

    The last `keep` are kept, and the `keep_best` with the highest `best_metric`; a restart knows
    both, because they are read from the disk. Methods raise CheckpointError. Of several processes
    all call the same methods, and each writes and reads what its devices hold; their number may
    differ when reading.
    """

    def __init__(
        self, folder: str | Path, keep: int = 3, keep_best: int = 1, best_metric: str = "bleu"
    ):
        self.folder = Path(folder).absolute()
        self.best_metric = best_metric
        self._keep, self._keep_best = keep, keep_best
        self._orbax: Any = None  # Orbax's writer, from the first save on
        self._signing: ChecksumWriter | None = None  # of the step last saved
        silence_orbax()

    def save(
        self, step: int, state: TrainState, meta: dict, metrics: dict[str, float] | None = None
    ) -> None:
        """Copies the state and writes it in the background; the state may be donated at once.

        Waits for an earlier save still under way, and raises what went wrong with that one.
        """
        self.wait()
        parts = checkpoint_items.parts(state) | {"meta": meta}
        scored = metrics is not None and self.best_metric in metrics
        with self._reraise_in_one_line(f"cannot save step {step}"):
            if self._orbax is None:  # only who writes here may sweep up
                run_on_primary(self._quarantine)
                self._orbax = self._open()
            self._orbax.save_checkpointables_async(
                step, parts, metrics=metrics if scored else None, force=True, overwrite=True
            )
            if is_primary():
                self._signing = ChecksumWriter(self.folder / str(step))

    def restore(self, which: CheckpointSpec, abstract_state: TrainState) -> TrainState:
        """The state as saved, bit for bit, laid out as `train.state.abstract_state` says.

        The mesh need not be the one it was saved from. `base`, which is not stored, is as given.
        """
        loaded = self._load(which, checkpoint_items.parts(abstract_state))
        rest = loaded.pop("rest")
        return abstract_state._replace(**rest, **loaded)

    def restore_latest_intact(
        self, abstract_state: TrainState, among: Sequence[int] | None = None
    ) -> tuple[TrainState, dict, list[str]]:
        """The newest whole state, its `meta`, and what is wrong with any newer one, a line each.

        Of `among` these steps, if they are given. Raises DamagedError where none is whole, and
        CheckpointError where there is none.
        """
        unlisted = [str(each) for each in self._unlisted()]
        steps, unlisted, others = broadcast_from_primary(
            [self.steps(), unlisted, self._no_folders()]
        )
        damaged = [
            f"{each} has unreadable metrics; the next save sets it aside" for each in unlisted
        ]
        damaged += [f"{each} is not a folder, so it is no checkpoint" for each in others]
        for step in sorted(steps if among is None else among, reverse=True):
            if str(self.folder / str(step)) in unlisted:
                continue
            try:
                return self.restore(step, abstract_state), self.meta(step), damaged
            except CorruptCheckpointError as error:
                damaged.append(str(error))
        if not damaged:
            raise CheckpointError(f"{self.folder}: no checkpoints")
        raise CorruptCheckpointError(f"{self.folder}: no checkpoint is whole: {'; '.join(damaged)}")

    def restore_params(
        self, which: CheckpointSpec, abstract_params: Any, whole: Callable[[Any], Any] = lambda x: x
    ) -> Any:
        """Weights for decoding: a checkpoint's, or the mean of several (train/checkpoint_spec.py).

        Of what is stored, `whole` makes what decoding takes, before there is a mean.
        """
        steps, part = self.choice(which)
        total = None
        for step in steps:
            kept = (self.folder / str(step) / "ema").exists()
            name = part or ("ema" if kept else "params")
            params = whole(self._load(step, {name: abstract_params})[name])
            total = params if total is None else jax.tree.map(jnp.add, total, params)
        return total if len(steps) == 1 else jax.tree.map(lambda x: x / len(steps), total)

    def meta(self, which: CheckpointSpec) -> dict:
        """What the checkpoint was saved with as `meta`."""
        return self._load(which, {"meta": None})["meta"]

    def metrics(self, which: CheckpointSpec) -> dict[str, float] | None:
        """What the checkpoint was saved with as `metrics`, if those include `best_metric`."""
        return self._measured(self._one(which))

    def steps(self) -> list[int]:
        """The steps there are, ascending."""
        if not self.folder.is_dir():
            return []
        there = (path for path in self.folder.iterdir() if path.is_dir())
        return sorted(int(path.name) for path in there if path.name.isdecimal())

    def best_step(self) -> int | None:
        """The step with the highest `best_metric`, the latest among equals; None if none has it."""
        return next(iter(self._ranked()), None)

    def unranked(self) -> list[int]:
        """The steps whose metrics are lost, so that "best" leaves them out."""
        lost = lambda step: checkpoint_items.lost_metrics(self.folder / str(step), self.best_metric)  # noqa: E731
        return [step for step in self.steps() if lost(step)]

    def best_first(self) -> list[int]:
        """All steps, the highest `best_metric` first; then those without it, the newest first."""
        ranked = self._ranked()
        return ranked + [step for step in reversed(self.steps()) if step not in ranked]

    def delete_after(self, step: int) -> None:
        """Removes the checkpoints of later steps than `step`."""
        self.close()

        def drop() -> None:
            for later in self.steps():
                if later > step:
                    # Renamed first: a folder half removed is no checkpoint.
                    gone = self.folder / f"{later}{_UNFINISHED[1:]}"
                    (self.folder / str(later)).rename(gone)
                    shutil.rmtree(gone)

        run_on_primary(drop)

    def wait(self) -> None:
        """Returns once all saves are on disk."""
        if self._orbax is not None:
            with self._reraise_in_one_line("cannot finish the last save"):
                self._orbax.wait()
                self._sign()

    def close(self) -> None:
        """Waits, and lets go of the folder."""
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
            return  # Orbax would wait for the others, who may not know of the error
        # On the way out of an error, that error is the one to tell.
        with suppress(CheckpointError) if kind else nullcontext():
            self.close()

    def _quarantine(self) -> None:
        for damaged in self._unlisted():
            names = (f"{damaged.name}.damaged{f'.{n}' * (n > 1)}" for n in itertools.count(1))
            damaged.rename(next(p for p in map(damaged.with_name, names) if not p.exists()))

    def _unlisted(self) -> list[Path]:
        """Checkpoints whose metrics cannot be read: Orbax would list nothing for them."""
        unread = [step for step in self.steps() if self._measured(step) is None]
        folders = [self.folder / str(step) for step in unread]
        return [each for each in folders if (each / "metrics").is_dir()]

    def _no_folders(self) -> list[str]:
        """What has a step's name and is a file, or a link that leads nowhere."""
        there = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(str(p) for p in there if p.name.isdecimal() and not p.is_dir())

    def _measured(self, step: int) -> dict[str, float] | None:
        return checkpoint_items.metrics(self.folder / str(step), self.best_metric)

    def _open(self) -> ocp.training.Checkpointer:
        policies = ocp.training.preservation_policies
        last = policies.LatestN(self._keep)
        best = policies.BestN(
            get_metric_fn=lambda metrics: metrics[self.best_metric],
            n=self._keep_best,
            keep_checkpoints_without_metrics=False,
        )
        return ocp.training.Checkpointer(
            self.folder,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=policies.AnyPreservationPolicy([last, best]),
            cleanup_tmp_directories=True,
        )

    def choice(self, which: CheckpointSpec) -> ResolvedCheckpoint:
        """The steps and the weights that a name means (train/checkpoint_spec.py)."""
        try:
            return choose(which, self.steps(), self._ranked())
        except CheckpointError as error:
            raise CheckpointError(f"{self.folder}: {error}") from None

    def _one(self, which: CheckpointSpec) -> int:
        steps = self.choice(which).steps
        if len(steps) > 1:
            raise CheckpointError(f"{self.folder}: only weights have an average, not {which}")
        return steps[0]

    def _ranked(self) -> list[int]:
        """The steps with a score, best first, the latest among equals."""
        found = ((self._measured(step), step) for step in self.steps())
        scored = [(metrics[self.best_metric], step) for metrics, step in found if metrics]
        return [step for _, step in sorted(scored, reverse=True)]

    def _load(self, which: CheckpointSpec, abstract: dict[str, Any]) -> dict[str, Any]:
        self.wait()
        step = self._one(which)
        others = ", ".join(str(other) for other in self.steps() if other != step)
        told = f"step {step} is damaged" + f" (there are also {others})" * bool(others)
        with self._reraise_in_one_line(told, CorruptCheckpointError):
            path = self.folder / str(step)
            run_on_primary(lambda: verify_checksums(path, [*abstract, "metrics"]))

            def check() -> None:
                checkpoint_items.check_folders(path, abstract)
                found = ocp.checkpointables_metadata(path).metadata
                # Parts that all checkpoints have come first: rest, params, then ema.
                for name in sorted(abstract.keys() - {"meta"}, reverse=True):
                    checkpoint_items.check(
                        f"{self.folder}, step {step}", name, found, abstract[name]
                    )

            run_on_all(check)
            wanted = jax.tree.map(checkpoint_items.with_default_sharding, abstract)
            return run_on_all(lambda: ocp.load_checkpointables(path, wanted))

    @contextmanager
    def _reraise_in_one_line(self, failure: str, kind: type = CheckpointError) -> Iterator[None]:
        """Turns whatever Orbax raises within, also on behalf of its threads, into one line."""
        reason = None
        try:
            yield
        except CheckpointError:
            raise
        except Exception as error:
            reason, full = first_line(error), disk_is_full(error)
        if reason is None:
            return
        self._abandon()
        if full:  # and the unfinished save would keep it so
            self._remove_partial()
            reason = "the disk is full; free some space and run again to resume"
        raise kind(f"{self.folder}: {failure}: {reason}")

    def _remove_partial(self) -> None:
        """Removes unfinished saves; Orbax's threads may still be writing to one that is gone."""
        quiet = 0
        for _ in range(50):
            unfinished = list(self.folder.glob(_UNFINISHED))
            quiet = 0 if unfinished else quiet + 1
            if quiet == 3:
                return
            for each in unfinished:
                shutil.rmtree(each, ignore_errors=True)
            time.sleep(0.1)

    def _abandon(self) -> None:
        """Lets go of Orbax after an error, which it would repeat; the next call starts afresh."""
        orbax, self._orbax = self._orbax, None
        with suppress(Exception):
            self._sign()
        with suppress(Exception):
            if jax.process_count() == 1:  # it would wait for the others, who know of no error
                orbax.close()
        gc.collect()  # while what `quieten` did still holds
