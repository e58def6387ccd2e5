"""A run that must end looks at nothing more, and whoever goes on makes up for it."""

import json

import pytest

from tests.train.counting_step import counted
from train.loop import Hook
from train.metrics import MetricsWriter, read_metrics
from train.multihost import PreemptedError


def test_only_what_is_urgent_runs_when_a_run_is_interrupted():
    calls = []
    hooks = [
        Hook("look", 2, lambda step, *_: calls.append(("look", step))),
        Hook("save", 2, lambda step, *_: calls.append(("save", step)), on_preemption=True),
    ]
    _, summary = counted(
        9,
        hooks=hooks,
        stop_requested=lambda step: "SIGTERM" if step == 4 else "",
    )
    assert calls == [("look", 2), ("save", 2), ("save", 4)]
    assert (summary.step, summary.stopped_by) == (4, "SIGTERM")


class Looking:
    """Hooks as a training has them, of which one is interrupted at a step, or the run killed."""

    def __init__(self, folder, broken_off=None, killed=None):
        self.folder, self.saved = folder, {}
        self.broken_off, self.killed = broken_off, killed
        self.hooks = [
            Hook("loss", 5, lambda step, *_: {"loss": float(step)}),
            Hook("bleu", 5, self._bleu),
            Hook("save", (2, 5), self._save, on_preemption=True),
        ]

    def _bleu(self, step, *_):
        if step == self.broken_off:
            raise PreemptedError("SIGTERM")
        return {"bleu": 10.0 * step}

    def _save(self, step, _state, report):
        self.saved[step] = json.loads(json.dumps(report))
        if step == self.killed:
            raise KeyboardInterrupt

    def run(self, steps, **options):
        first = max(self.saved, default=0)
        resume_from = self.saved[first]["logger"] if first else None
        with MetricsWriter(self.folder, first) as writer:
            return counted(
                steps,
                first=first,
                hooks=self.hooks,
                writer=writer,
                resume_from=resume_from,
                **options,
            )[1]

    def valid(self):
        events = [e for e in read_metrics(self.folder) if e["split"] == "valid"]
        return [(e["step"], e["loss"], e["bleu"]) for e in events]


@pytest.mark.parametrize("broken_off", [5, 7])
def test_a_look_that_was_broken_off_is_made_up_for(tmp_path, broken_off):
    """Also the last one, which comes at whatever step a run ends."""
    run = Looking(tmp_path, broken_off)
    summary = run.run(7)
    assert (summary.step, summary.stopped_by) == (broken_off, "SIGTERM")
    summary = run.run(7)  # and once more
    assert (summary.step, summary.stopped_by) == (broken_off, "SIGTERM")
    assert "bleu" not in run.saved[broken_off]
    run.broken_off = None
    assert run.run(7).stopped_by == "num_steps"
    assert run.valid() == [(5, 5.0, 50.0), (7, 7.0, 70.0)]
    assert run.saved[7]["bleu"] == 70.0 and "pending_hooks" not in run.saved[7]["logger"]


def test_what_was_measured_is_told_before_the_checkpoint_that_knows_it(tmp_path):
    """Who is killed right after it goes on from there, and does not look again."""
    run = Looking(tmp_path, killed=5)
    with pytest.raises(KeyboardInterrupt):
        run.run(7)
    run.killed = None
    run.run(7)
    assert run.valid() == [(5, 5.0, 50.0), (7, 7.0, 70.0)]
