"""Checkpoints: saving, restoring, retention and cleanup."""

import os

import jax
import pytest

from tests.train.states import META, assert_same, make_state, shapes
from train.checkpoint import CheckpointError, CheckpointManager


@pytest.mark.parametrize("ema", [True, False])
def test_a_state_is_restored_bit_for_bit(folder, bits, ema):
    state = make_state(ema=ema)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(7, state, META)
    with CheckpointManager(folder) as checkpoints:
        restored = checkpoints.restore("last", shapes(state))
        assert checkpoints.meta("last") == META
    assert_same(bits(restored), bits(state))
    assert jax.tree.map(lambda x: x.sharding, restored) == jax.tree.map(lambda x: x.sharding, state)
    assert jax.random.key_impl(restored.rng) == jax.random.key_impl(state.rng)


@pytest.mark.parametrize(
    ("saved_mesh", "restored_mesh"),
    [
        ((2, 2, 2), (4, 1, 2)),
        ((1, 8, 1), (1, 1, 1)),
        ((1, 1, 1), (1, 1, 4)),
    ],
    ids=str,
)
def test_a_state_is_restored_on_another_mesh(folder, bits, saved_mesh, restored_mesh):
    state, target = make_state(mesh=saved_mesh), make_state(0.0, mesh=restored_mesh)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(7, state, META)
        state_on_mesh = checkpoints.restore(7, shapes(target))
    assert_same(bits(state_on_mesh), bits(state))
    assert state_on_mesh.params["w"].sharding == target.params["w"].sharding


@pytest.mark.parametrize("ema", [True, False])
def test_decoding_restores_ema_or_else_params(folder, bits, ema):
    state = make_state(ema=ema)
    shape_only = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state.params)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(7, state, META)
    with CheckpointManager(folder) as checkpoints:
        for abstract in (shapes(state.params), shape_only):
            assert_same(bits(checkpoints.restore_params("last", abstract)), bits(state.eval_params))


def test_a_save_is_a_snapshot_of_the_state(folder, bits):
    state = make_state()
    expected = bits(state)
    update = jax.jit(lambda s: jax.tree.map(lambda x: x * 2, s), donate_argnums=0)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
        update(state.params)  # donates the state during the save
        assert state.params["w"].is_deleted()
        assert_same(bits(checkpoints.restore(1, shapes(make_state(0.0)))), expected)


def test_the_last_and_best_checkpoints_are_kept_across_restarts(folder):
    bleu = {1: 5.0, 2: None, 3: 9.0, 4: 9.0, 5: None, 6: 1.0, 7: 2.0, 8: None}
    state = make_state(ema=False)
    with CheckpointManager(folder, keep=2) as checkpoints:
        for step, score in list(bleu.items())[:5]:
            metrics = {"loss": 0.1} | ({} if score is None else {"bleu": score})
            checkpoints.save(step, state, META, metrics)
        checkpoints.wait()
        assert checkpoints.steps() == [4, 5]
    with CheckpointManager(folder, keep=2) as checkpoints:
        assert checkpoints.best_step() == 4  # the later of equal scores
        for step, score in list(bleu.items())[5:]:
            checkpoints.save(step, state, META, None if score is None else {"bleu": score})
    with CheckpointManager(folder, keep=2) as checkpoints:
        assert (checkpoints.steps(), checkpoints.best_step()) == ([4, 7, 8], 4)
        assert checkpoints.metrics("best") == {"loss": 0.1, "bleu": 9.0}
        assert checkpoints.metrics("last") is None
    assert sorted(os.listdir(folder)) == ["4", "7", "8"]


def test_a_step_can_be_saved_again(folder, bits):
    first, second = make_state(1.0), make_state(2.0)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, first, META)
        checkpoints.save(1, second, META)
        assert_same(bits(checkpoints.restore(1, shapes(first))), bits(second))


def test_a_partial_save_is_not_listed_and_the_next_writer_removes_it(folder):
    state = make_state()
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
    partial = folder / "5.orbax-checkpoint-tmp"
    partial.mkdir()
    (partial / "part").write_bytes(b"x")
    with CheckpointManager(folder) as checkpoints:
        assert checkpoints.steps() == [1]
        assert partial.exists()  # a reader must not remove a save in progress
        checkpoints.save(2, state, META)
    assert not partial.exists()
    with CheckpointManager(folder) as checkpoints:
        assert checkpoints.steps() == [1, 2]


def test_reading_creates_no_files(folder):
    with CheckpointManager(folder) as checkpoints:
        assert checkpoints.steps() == [] and checkpoints.best_step() is None
        with pytest.raises(CheckpointError, match="no checkpoints: train first"):
            checkpoints.restore_params("best", {})
    assert not folder.parent.exists()


@pytest.mark.parametrize("spec", [3, "3", "newest", -1])
def test_a_missing_checkpoint_error_lists_the_existing_ones(folder, spec):
    state = make_state()
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
        checkpoints.save(12, state, META)
        assert checkpoints.meta("12") == META
        with pytest.raises(CheckpointError) as error:
            checkpoints.restore(spec, shapes(state))
        assert "1, 12" in str(error.value) and repr(spec) in str(error.value)
        with pytest.raises(CheckpointError, match="no checkpoint has a score.*1, 12"):
            checkpoints.restore("best", shapes(state))


def test_saving_prints_nothing(folder, capfd, recwarn):
    with CheckpointManager(folder, keep=1) as checkpoints:
        for step in range(3):
            checkpoints.save(step, make_state(), META, {"bleu": 1.0})
        checkpoints.restore("best", shapes(make_state()))
    out, err = capfd.readouterr()
    assert out + err == "" and not recwarn.list
