"""Preemption: only hooks marked `on_preemption` run, and pending hooks run after resuming."""

import json

import pytest

from tests.train.counting_step import fit_counting
from train.loop import Hook
from train.metrics import MetricsWriter, read_metrics
from train.multihost import PreemptedError


def test_only_on_preemption_hooks_run_at_preemption():
    calls = []
    hooks = [
        Hook("eval", 2, lambda step, *_: calls.append(("eval", step))),
        Hook("save", 2, lambda step, *_: calls.append(("save", step)), on_preemption=True),
    ]
    _, summary = fit_counting(
        9,
        hooks=hooks,
        stop_requested=lambda step: "SIGTERM" if step == 4 else "",
    )
    assert calls == [("eval", 2), ("save", 2), ("save", 4)]
    assert (summary.step, summary.stopped_by) == (4, "SIGTERM")


class PreemptedRun:
    """A run with evaluation and save hooks that is preempted or killed at a step."""

    def __init__(self, folder, preempted_at=None, killed_at=None):
        self.folder, self.saved = folder, {}
        self.preempted_at, self.killed_at = preempted_at, killed_at
        self.hooks = [
            Hook("loss", 5, lambda step, *_: {"loss": float(step)}),
            Hook("bleu", 5, self._bleu),
            Hook("save", (2, 5), self._save, on_preemption=True),
        ]

    def _bleu(self, step, *_):
        if step == self.preempted_at:
            raise PreemptedError("SIGTERM")
        return {"bleu": 10.0 * step}

    def _save(self, step, _state, report):
        self.saved[step] = json.loads(json.dumps(report))
        if step == self.killed_at:
            raise KeyboardInterrupt

    def run(self, steps, **options):
        start_step = max(self.saved, default=0)
        resume_from = self.saved[start_step]["logger"] if start_step else None
        with MetricsWriter(self.folder, start_step) as writer:
            return fit_counting(
                steps,
                start_step=start_step,
                hooks=self.hooks,
                writer=writer,
                resume_from=resume_from,
                **options,
            )[1]

    def valid(self):
        events = [e for e in read_metrics(self.folder) if e["event"] == "valid"]
        return [(e["step"], e["loss"], e["bleu"]) for e in events]


@pytest.mark.parametrize("preempted_at", [5, 7])
def test_a_preempted_evaluation_runs_after_resuming(tmp_path, preempted_at):
    """Includes the final evaluation, whose step is not a multiple of the interval."""
    run = PreemptedRun(tmp_path, preempted_at)
    summary = run.run(7)
    assert (summary.step, summary.stopped_by) == (preempted_at, "SIGTERM")
    summary = run.run(7)  # preempted again
    assert (summary.step, summary.stopped_by) == (preempted_at, "SIGTERM")
    assert "bleu" not in run.saved[preempted_at]
    run.preempted_at = None
    assert run.run(7).stopped_by == "num_steps"
    assert run.valid() == [(5, 5.0, 50.0), (7, 7.0, 70.0)]
    assert run.saved[7]["bleu"] == 70.0 and "pending_hooks" not in run.saved[7]["logger"]


def test_metrics_are_written_before_the_checkpoint_that_includes_them(tmp_path):
    """A run killed right after the checkpoint resumes without repeating the evaluation."""
    run = PreemptedRun(tmp_path, killed_at=5)
    with pytest.raises(KeyboardInterrupt):
        run.run(7)
    run.killed_at = None
    run.run(7)
    assert run.valid() == [(5, 5.0, 50.0), (7, 7.0, 70.0)]
