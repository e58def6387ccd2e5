"""Corrupt checkpoints: each is reported in one line, and intact ones are restored."""

import itertools
import os
import re
import shutil
import time

import pytest

from benchmarks.corruption import cut, flip
from tests.train.failures import one_line
from tests.train.states import META, assert_same, make_state, shapes
from train.checkpoint import CheckpointError, CheckpointManager

pytestmark = pytest.mark.usefixtures("frozen_garbage")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(width=16), "w is (8, 8), expected (8, 16)"),
        (dict(sgd=True), "opt_state/0/count is (), expected absent"),
        (dict(ema=True), "has no ema"),
    ],
    ids=str,
)
def test_a_state_of_another_run_is_rejected(folder, capfd, change, words):
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, make_state(ema=False), META)
        with pytest.raises(CheckpointError) as error:
            checkpoints.restore(1, shapes(make_state(**{"ema": False} | change)))
    assert words in one_line(error, capfd) and "step 1" in str(error.value)


def shorten(path):
    path.write_bytes(path.read_bytes()[:10])


@pytest.mark.parametrize("corrupt", [shorten, os.remove], ids=["shortened", "removed"])
@pytest.mark.parametrize("part", ["d/*", "ocdbt.process_0/d/*", "manifest.ocdbt", "_METADATA"])
def test_a_corrupt_checkpoint_is_rejected_and_others_are_intact(folder, bits, capfd, part, corrupt):
    state = make_state(width=2048)  # too large to be stored in the index itself
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
        checkpoints.save(2, state, META)
    for path in (folder / "2" / "params").glob(part):
        corrupt(path)
    with CheckpointManager(folder) as checkpoints:
        with pytest.raises(CheckpointError) as error:
            checkpoints.restore(2, shapes(state))
        assert "step 2 is corrupt (other steps: 1): " in one_line(error, capfd)
        assert_same(bits(checkpoints.restore(1, shapes(state))), bits(state))


@pytest.mark.slow
def test_if_any_file_of_the_latest_checkpoint_is_corrupt_the_previous_one_is_restored(
    folder, bits, capfd
):
    """Each file is corrupted in one way; benchmarks/fault_injection.py tests all ways."""
    old, new = make_state(1.0), make_state(2.0)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, old, META)
        checkpoints.save(2, new, META, {"bleu": 1.0})
    intact_copy = folder.parent / "keep"
    shutil.copytree(folder / "2", intact_copy)
    files = [
        path.relative_to(intact_copy) for path in sorted(intact_copy.rglob("*")) if path.is_file()
    ]
    assert len(files) > 10
    fallbacks = []
    for file, corrupt_file in zip(files, itertools.cycle([cut, flip, os.remove])):  # noqa: B905
        corrupt_file(folder / "2" / file)
        with CheckpointManager(folder) as checkpoints:
            restored, meta, corrupt = checkpoints.restore_latest_intact(shapes(old))
        assert meta == META, file
        assert all(re.search("step 2 is corrupt|2 has unreadable", line) for line in corrupt), file
        assert "\n" not in "".join(corrupt)
        assert_same(bits(restored), bits(old if corrupt else new))
        fallbacks.append(bool(corrupt))
        shutil.rmtree(folder / "2")
        shutil.copytree(intact_copy, folder / "2")
    assert sum(fallbacks) > len(files) - 3  # files that are not read do not matter
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize("remaining_item", [None, "params", "meta"])
def test_if_items_of_the_latest_checkpoint_are_missing_the_previous_one_is_restored(
    folder, bits, remaining_item
):
    """As after an incomplete copy: an error other than that of a run with other settings."""
    state = make_state(1.0)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
    if remaining_item:
        shutil.copytree(folder / "1" / remaining_item, folder / "2" / remaining_item)
    else:
        (folder / "2").mkdir()
    with CheckpointManager(folder) as checkpoints:
        restored, _, (line,) = checkpoints.restore_latest_intact(shapes(state))
        assert "step 2 is corrupt (other steps: 1): " in line and "\n" not in line
        assert_same(bits(restored), bits(state))
        checkpoints.save(2, state, META)
    with CheckpointManager(folder) as checkpoints:
        assert checkpoints.restore_latest_intact(shapes(state))[2] == []


def test_a_file_named_like_a_checkpoint_is_reported(folder):
    state = make_state()
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
    (folder / "2").write_text("")
    (folder / "3").symlink_to(folder / "3")
    with CheckpointManager(folder) as checkpoints:
        corrupt = checkpoints.restore_latest_intact(shapes(state))[2]
    assert [line.split("/")[-1] for line in corrupt] == [
        f"{n} is not a folder and thus not a checkpoint" for n in "23"
    ]


def test_without_an_intact_checkpoint_the_error_lists_all(folder):
    state = make_state()
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
        checkpoints.save(2, state, META, {"bleu": 2.0})
    cut(next((folder / "1" / "params").rglob("manifest.ocdbt")))
    cut(folder / "2" / "metrics" / "metrics")
    with CheckpointManager(folder) as checkpoints, pytest.raises(CheckpointError) as error:
        checkpoints.restore_latest_intact(shapes(state))
    words = r"no checkpoint is intact: .*2 has unreadable metrics.*step 1 is corrupt"
    assert re.search(words, str(error.value)) and "\n" not in str(error.value)


def test_checksums_are_written_as_soon_as_a_save_is_finished(folder):
    """Not when the next save starts: a run may be killed before that."""
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, make_state(), META)
        for _ in range(600):
            if (folder / "1" / "digests.json").exists():
                break
            time.sleep(0.05)
        else:
            pytest.fail("no checksums within 30 s")
