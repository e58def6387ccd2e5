"""What could not be written or read is told in one line, and its neighbours are whole."""

import errno
import gc
import itertools
import json
import os
import re
import shutil
import threading
import time

import pytest
from orbax.checkpoint import v1 as ocp

from benchmarks.corruption import cut, flip
from tests.train.states import META, make_state, same, shapes
from train.checkpoint import CheckpointError, CheckpointManager


@pytest.fixture(autouse=True)
def nothing_old_is_collected():
    """Every failure collects garbage, which in a suite of many compiled programs takes seconds."""
    gc.freeze()
    yield
    gc.unfreeze()


def one_line(error, capfd):
    assert "\n" not in str(error.value)
    out, err = capfd.readouterr()
    assert out + err == ""
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(width=16), "w is (8, 8) there and (8, 16) here"),
        (dict(sgd=True), "opt_state/0/count is () there and absent here"),
        (dict(ema=True), "holds no ema"),
    ],
    ids=str,
)
def test_a_state_of_another_run_is_refused(folder, capfd, change, words):
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, make_state(ema=False), META)
        with pytest.raises(CheckpointError) as error:
            checkpoints.restore(1, shapes(make_state(**{"ema": False} | change)))
    assert words in one_line(error, capfd) and "step 1" in str(error.value)


def shorten(path):
    path.write_bytes(path.read_bytes()[:10])


@pytest.mark.parametrize("damage", [shorten, os.remove], ids=["shortened", "removed"])
@pytest.mark.parametrize("part", ["d/*", "ocdbt.process_0/d/*", "manifest.ocdbt", "_METADATA"])
def test_a_damaged_checkpoint_is_refused_and_its_neighbour_is_whole(
    folder, bits, capfd, part, damage
):
    state = make_state(width=2048)  # too large to lie in the index itself
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
        checkpoints.save(2, state, META)
    for path in (folder / "2" / "params").glob(part):
        damage(path)
    with CheckpointManager(folder) as checkpoints:
        with pytest.raises(CheckpointError) as error:
            checkpoints.restore(2, shapes(state))
        assert "step 2 is corrupt (there are also 1): " in one_line(error, capfd)
        same(bits(checkpoints.restore(1, shapes(state))), bits(state))


class Full:
    """In the place of Orbax's writer: the disk is full, in one of the ways that it tells so."""

    def __init__(self, error):
        self.error = error

    def __call__(self, *_args, **_kwargs):
        raise self.error


def chained():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("save failed") from error
    except RuntimeError as error:
        return error


FULL = [
    OSError(errno.ENOSPC, "No space left on device"),
    OSError(errno.EDQUOT, "Disk quota exceeded"),
    ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device\nsecond line"),
    chained(),
    ExceptionGroup("two threads failed", [KeyError("x"), OSError(errno.ENOSPC, "full")]),
]


@pytest.mark.parametrize("error", FULL, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("thread", [False, True], ids=["at once", "in the background"])
def test_a_full_disk_is_one_line_and_earlier_checkpoints_are_whole(
    folder, bits, capfd, monkeypatch, error, thread
):
    state = make_state()
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
        checkpoints.wait()
        half = folder / "2.orbax-checkpoint-tmp"
        half.mkdir()
        orbax, idle = ocp.training.Checkpointer, lambda *_args, **_kwargs: None
        with monkeypatch.context() as patch:
            patch.setattr(orbax, "save_checkpointables_async", idle if thread else Full(error))
            patch.setattr(orbax, "wait", Full(error) if thread else idle)
            with pytest.raises(CheckpointError) as raised:
                checkpoints.save(2, state, META)
                checkpoints.wait()
            checkpoints.wait()  # it is told once
        assert "disk is full" in one_line(raised, capfd)
        assert not half.exists()  # it would go on filling the disk
    with CheckpointManager(folder) as checkpoints:
        same(bits(checkpoints.restore("last", shapes(state))), bits(state))


@pytest.mark.parametrize(
    ("module", "name", "where"),
    [
        (os, "rename", "threads"),  # what gives a finished save its name
        (json, "dumps", "threads"),  # what describes it
        (json, "dumps", "anywhere"),
    ],
)
def test_an_error_within_orbax_is_raised_once(
    folder, bits, capfd, caplog, monkeypatch, module, name, where
):
    state, works = make_state(), getattr(module, name)
    failed = []

    def fail(*args, **options):
        if where == "threads" and threading.current_thread() is threading.main_thread():
            return works(*args, **options)
        failed.append(name)
        raise OSError(errno.ENOSPC, "No space left on device")

    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
        checkpoints.wait()
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            with pytest.raises(CheckpointError) as error:
                checkpoints.save(2, state, META)
                checkpoints.wait()
        assert failed and "disk is full" in one_line(error, capfd)
        assert not [each for each in caplog.records if "/orbax/" in each.pathname]
        assert checkpoints.steps() == [1]
        checkpoints.save(3, state, META)  # the disk was given room
    assert sorted(os.listdir(folder)) == ["1", "3"]
    with CheckpointManager(folder) as checkpoints:
        same(bits(checkpoints.restore("last", shapes(state))), bits(state))


def test_a_late_writer_leaves_nothing_unfinished(tmp_path):
    unfinished = tmp_path / "7.orbax-checkpoint-tmp" / "rest"
    unfinished.mkdir(parents=True)
    late = threading.Timer(0.15, lambda: unfinished.mkdir(parents=True, exist_ok=True))
    late.start()
    CheckpointManager(tmp_path)._remove_partial()
    late.join()
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_whatever_file_of_the_newest_is_damaged_the_one_before_is_used(folder, bits, capfd):
    """Each file in one way; benchmarks/fault_injection.py has every file in every way."""
    old, new = make_state(1.0), make_state(2.0)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, old, META)
        checkpoints.save(2, new, META, {"bleu": 1.0})
    keep = folder.parent / "keep"
    shutil.copytree(folder / "2", keep)
    files = [path.relative_to(keep) for path in sorted(keep.rglob("*")) if path.is_file()]
    assert len(files) > 10
    used = []
    for file, damage in zip(files, itertools.cycle([cut, flip, os.remove])):  # noqa: B905
        damage(folder / "2" / file)
        with CheckpointManager(folder) as checkpoints:
            found, meta, corrupt = checkpoints.restore_latest_intact(shapes(old))
        assert meta == META, file
        assert all(re.search("step 2 is corrupt|2 has unreadable", line) for line in corrupt), file
        assert "\n" not in "".join(corrupt)
        same(bits(found), bits(old if corrupt else new))
        used.append(bool(corrupt))
        shutil.rmtree(folder / "2")
        shutil.copytree(keep, folder / "2")
    assert sum(used) > len(files) - 3  # what nothing reads does no harm
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize("step", [1, 2])
def test_unreadable_metrics_are_told_and_set_aside_by_who_writes(folder, bits, step):
    states = {1: make_state(1.0), 2: make_state(2.0), 3: make_state(3.0)}
    with CheckpointManager(folder) as checkpoints:
        for number in 1, 2:
            checkpoints.save(number, states[number], META, {"bleu": 1.0})
    cut(folder / str(step) / "metrics" / "metrics")
    with CheckpointManager(folder) as checkpoints:
        found, _, corrupt = checkpoints.restore_latest_intact(shapes(states[1]))
        same(bits(found), bits(states[2 if step == 1 else 1]))
        assert f"{step} has unreadable metrics; the next save sets it aside" in corrupt[0]
        assert len(corrupt) == 1
        checkpoints.save(3, states[3], META, {"bleu": 2.0})
    with CheckpointManager(folder) as checkpoints:
        assert checkpoints.steps() == [3 - step, 3] and checkpoints.best_step() == 3
    assert (folder / f"{step}.corrupt").is_dir()
    cut(folder / "3" / "metrics" / "metrics")
    (folder / "3.corrupt").mkdir()  # it was saved, corrupt and set aside before
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(4, states[3], META, {"bleu": 2.0})
    assert (folder / "3.corrupt.2").is_dir() and not (folder / "3").exists()


@pytest.mark.parametrize("left", [None, "params", "meta"])
def test_a_folder_that_lacks_parts_is_damaged_and_the_one_before_is_used(folder, bits, left):
    """As a copy that was broken off leaves it; it is not of a run with other settings."""
    state = make_state(1.0)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
    if left:
        shutil.copytree(folder / "1" / left, folder / "2" / left)
    else:
        (folder / "2").mkdir()
    with CheckpointManager(folder) as checkpoints:
        found, _, (line,) = checkpoints.restore_latest_intact(shapes(state))
        assert "step 2 is corrupt (there are also 1): " in line and "\n" not in line
        same(bits(found), bits(state))
        checkpoints.save(2, state, META)
    with CheckpointManager(folder) as checkpoints:
        assert checkpoints.restore_latest_intact(shapes(state))[2] == []


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
        (folder / "1" / "digests.json").unlink()  # its writer ended before it was noted
        for case, content in BAD_METRICS.items():
            (folder / "1" / "metrics" / "metrics").write_text(content)
            unranked = [] if case == "another number" else [1]
            assert checkpoints.unranked() == unranked, case


def test_lost_metrics_are_told_from_none(folder):
    """Those that were saved and are gone, and a folder that lost its parts, are reported."""
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, make_state(), META)  # never measured
        for step in 2, 3, 4, 5:
            checkpoints.save(step, make_state(), META, {"bleu": float(step)})
        checkpoints.wait()
        there = checkpoints.steps()
        assert checkpoints.unranked() == []
        shutil.rmtree(folder / "5" / "metrics")
        for path in (folder / "4").iterdir():
            path.unlink() if path.is_file() else shutil.rmtree(path)
        assert checkpoints.unranked() == [4, 5] and checkpoints.best_step() == 3
        assert checkpoints.steps() == there
        with pytest.raises(CheckpointError, match="step 4 is corrupt .*: params is missing$"):
            checkpoints.restore_params(4, shapes(make_state()).params)


def test_a_file_in_the_place_of_a_checkpoint_is_reported(folder):
    state = make_state()
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
    (folder / "2").write_text("")
    (folder / "3").symlink_to(folder / "3")
    with CheckpointManager(folder) as checkpoints:
        corrupt = checkpoints.restore_latest_intact(shapes(state))[2]
    assert [line.split("/")[-1] for line in corrupt] == [
        f"{n} is not a folder, so it is no checkpoint" for n in "23"
    ]


@pytest.mark.slow
def test_no_bit_of_its_metrics_keeps_other_checkpoints_from_being_used(folder, bits):
    old, new = make_state(1.0), make_state(2.0)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, old, META, {"bleu": 1.0})
        checkpoints.save(2, new, META, {"bleu": 2.0})
    file = folder / "2" / "metrics" / "metrics"
    content = file.read_bytes()
    assert len(content) > 10
    for at in range(len(content)):
        file.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with CheckpointManager(folder) as checkpoints:
            found, _, corrupt = checkpoints.restore_latest_intact(shapes(old))
            assert len(corrupt) == 1 and checkpoints.best_step() in (1, 2)
        same(bits(found), bits(old))


def test_where_nothing_is_whole_all_is_told(folder):
    state = make_state()
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
        checkpoints.save(2, state, META, {"bleu": 2.0})
    cut(next((folder / "1" / "params").rglob("manifest.ocdbt")))
    cut(folder / "2" / "metrics" / "metrics")
    with CheckpointManager(folder) as checkpoints, pytest.raises(CheckpointError) as error:
        checkpoints.restore_latest_intact(shapes(state))
    words = r"no checkpoint is whole: .*2 has unreadable metrics.*step 1 is corrupt"
    assert re.search(words, str(error.value)) and "\n" not in str(error.value)


def test_checksums_are_noted_as_soon_as_a_save_is_over(folder):
    """Not when the next one begins: a run may be killed before that."""
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, make_state(), META)
        for _ in range(600):
            if (folder / "1" / "digests.json").exists():
                break
            time.sleep(0.05)
        else:
            pytest.fail("no checksums within 30 s")
