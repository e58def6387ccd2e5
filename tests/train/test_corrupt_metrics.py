"""Corrupt metrics of checkpoints: reported, not ranked, and no obstacle to other checkpoints."""

import shutil

import pytest

from benchmarks.corruption import cut
from tests.train.states import META, assert_same, make_state, shapes
from train.checkpoint import CheckpointError, CheckpointManager

pytestmark = pytest.mark.usefixtures("frozen_garbage")


@pytest.mark.parametrize("step", [1, 2])
def test_checkpoints_with_unreadable_metrics_are_reported_and_renamed_by_the_next_save(
    folder, bits, step
):
    states = {1: make_state(1.0), 2: make_state(2.0), 3: make_state(3.0)}
    with CheckpointManager(folder) as checkpoints:
        for saved_step in 1, 2:
            checkpoints.save(saved_step, states[saved_step], META, {"bleu": 1.0})
    cut(folder / str(step) / "metrics" / "metrics")
    with CheckpointManager(folder) as checkpoints:
        restored, _, corrupt = checkpoints.restore_latest_intact(shapes(states[1]))
        assert_same(bits(restored), bits(states[2 if step == 1 else 1]))
        assert f"{step} has unreadable metrics; the next save renames it" in corrupt[0]
        assert len(corrupt) == 1
        checkpoints.save(3, states[3], META, {"bleu": 2.0})
    with CheckpointManager(folder) as checkpoints:
        assert checkpoints.steps() == [3 - step, 3] and checkpoints.best_step() == 3
    assert (folder / f"{step}.corrupt").is_dir()
    cut(folder / "3" / "metrics" / "metrics")
    (folder / "3.corrupt").mkdir()  # from an earlier corrupt checkpoint of this step
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(4, states[3], META, {"bleu": 2.0})
    assert (folder / "3.corrupt.2").is_dir() and not (folder / "3").exists()


BAD_METRICS = {
    "text": '{"bleu": "1"}',
    "truth": '{"bleu": true}',
    "a list": "[3]",
    "NaN": '{"bleu": NaN}',
    "infinite": '{"bleu": 1e999}',
    "huge": '{"bleu": 1' + "0" * 400 + "}",
    "longer": '{"bleu": 1' + "0" * 5000 + "}",
    "nested": "[" * 100_000,
    "another number": '{"bleu": 0.5}',
}


def test_a_checkpoint_with_unusable_metrics_is_not_ranked_but_listed(folder):
    with CheckpointManager(folder) as checkpoints:
        for step in 1, 2:
            checkpoints.save(step, make_state(), META, {"bleu": -float(step), "loss": float("inf")})
        checkpoints.wait()
        assert (checkpoints.best_step(), checkpoints.unranked()) == (1, [])
        for case, content in BAD_METRICS.items():
            (folder / "1" / "metrics" / "metrics").write_text(content)
            assert (checkpoints.best_step(), checkpoints.unranked()) == (2, [1]), case
        (folder / "1" / "digests.json").unlink()  # its writer ended before writing it
        for case, content in BAD_METRICS.items():
            (folder / "1" / "metrics" / "metrics").write_text(content)
            unranked = [] if case == "another number" else [1]
            assert checkpoints.unranked() == unranked, case


def test_lost_metrics_differ_from_no_metrics(folder):
    """Metrics that were saved and are missing, and a folder without items, are reported."""
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, make_state(), META)  # without metrics
        for step in 2, 3, 4, 5:
            checkpoints.save(step, make_state(), META, {"bleu": float(step)})
        checkpoints.wait()
        steps = checkpoints.steps()
        assert checkpoints.unranked() == []
        shutil.rmtree(folder / "5" / "metrics")
        for path in (folder / "4").iterdir():
            path.unlink() if path.is_file() else shutil.rmtree(path)
        assert checkpoints.unranked() == [4, 5] and checkpoints.best_step() == 3
        assert checkpoints.steps() == steps
        with pytest.raises(CheckpointError, match="step 4 is corrupt .*: params is missing$"):
            checkpoints.restore_params(4, shapes(make_state()).params)


@pytest.mark.slow
def test_any_flipped_bit_of_metrics_leaves_other_checkpoints_usable(folder, bits):
    old, new = make_state(1.0), make_state(2.0)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, old, META, {"bleu": 1.0})
        checkpoints.save(2, new, META, {"bleu": 2.0})
    file = folder / "2" / "metrics" / "metrics"
    content = file.read_bytes()
    assert len(content) > 10
    for index in range(len(content)):
        file.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
        with CheckpointManager(folder) as checkpoints:
            restored, _, corrupt = checkpoints.restore_latest_intact(shapes(old))
            assert len(corrupt) == 1 and checkpoints.best_step() in (1, 2)
        assert_same(bits(restored), bits(old))
