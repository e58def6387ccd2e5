"""What comes back from the disk is what went there."""

import os

import jax
import pytest

from tests.train.states import META, make_state, same, shapes
from train.checkpoint import CheckpointError, CheckpointManager


@pytest.mark.parametrize("ema", [True, False])
def test_a_state_comes_back_bit_for_bit(folder, bits, ema):
    state = make_state(ema=ema)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(7, state, META)
    with CheckpointManager(folder) as checkpoints:
        back = checkpoints.restore("last", shapes(state))
        assert checkpoints.meta("last") == META
    same(bits(back), bits(state))
    assert jax.tree.map(lambda x: x.sharding, back) == jax.tree.map(lambda x: x.sharding, state)
    assert jax.random.key_impl(back.rng) == jax.random.key_impl(state.rng)


@pytest.mark.parametrize(
    ("saved", "restored"),
    [
        ((2, 2, 2), (4, 1, 2)),
        ((1, 8, 1), (1, 1, 1)),
        ((1, 1, 1), (1, 1, 4)),
    ],
    ids=str,
)
def test_a_state_comes_back_on_another_mesh(folder, bits, saved, restored):
    state, other = make_state(mesh=saved), make_state(0.0, mesh=restored)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(7, state, META)
        back = checkpoints.restore(7, shapes(other))
    same(bits(back), bits(state))
    assert back.params["w"].sharding == other.params["w"].sharding


@pytest.mark.parametrize("ema", [True, False])
def test_decoding_reads_the_average_or_else_the_parameters(folder, bits, ema):
    state = make_state(ema=ema)
    shape_only = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state.params)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(7, state, META)
    with CheckpointManager(folder) as checkpoints:
        for abstract in (shapes(state.params), shape_only):
            same(bits(checkpoints.restore_params("last", abstract)), bits(state.weights))


def test_what_is_saved_is_the_state_of_that_moment(folder, bits):
    state = make_state()
    expected = bits(state)
    update = jax.jit(lambda s: jax.tree.map(lambda x: x * 2, s), donate_argnums=0)
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
        update(state.params)  # takes the memory while the save is under way
        assert state.params["w"].is_deleted()
        same(bits(checkpoints.restore(1, shapes(make_state(0.0)))), expected)


def test_the_last_and_the_best_are_kept_and_known_after_a_restart(folder):
    bleu = {1: 5.0, 2: None, 3: 9.0, 4: 9.0, 5: None, 6: 1.0, 7: 2.0, 8: None}
    state = make_state(ema=False)
    with CheckpointManager(folder, keep=2) as checkpoints:
        for step, score in list(bleu.items())[:5]:
            measured = {"loss": 0.1} | ({} if score is None else {"bleu": score})
            checkpoints.save(step, state, META, measured)
        checkpoints.wait()
        assert checkpoints.steps() == [4, 5]
    with CheckpointManager(folder, keep=2) as checkpoints:
        assert checkpoints.best_step() == 4  # the later of equals
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
        same(bits(checkpoints.restore(1, shapes(first))), bits(second))


def test_a_save_cut_short_is_not_listed_and_is_swept_up_by_the_next_writer(folder):
    state = make_state()
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
    torn = folder / "5.orbax-checkpoint-tmp"
    torn.mkdir()
    (torn / "part").write_bytes(b"x")
    with CheckpointManager(folder) as checkpoints:
        assert checkpoints.steps() == [1]
        assert torn.exists()  # who only reads may be looking at a save that is under way
        checkpoints.save(2, state, META)
    assert not torn.exists()
    with CheckpointManager(folder) as checkpoints:
        assert checkpoints.steps() == [1, 2]


def test_looking_creates_nothing(folder):
    with CheckpointManager(folder) as checkpoints:
        assert checkpoints.steps() == [] and checkpoints.best_step() is None
        with pytest.raises(CheckpointError, match="no checkpoints: train first"):
            checkpoints.restore_params("best", {})
    assert not folder.parent.exists()


@pytest.mark.parametrize("which", [3, "3", "newest", -1])
def test_a_step_that_is_not_there_is_answered_with_those_that_are(folder, which):
    state = make_state()
    with CheckpointManager(folder) as checkpoints:
        checkpoints.save(1, state, META)
        checkpoints.save(12, state, META)
        assert checkpoints.meta("12") == META
        with pytest.raises(CheckpointError) as error:
            checkpoints.restore(which, shapes(state))
        assert "1, 12" in str(error.value) and repr(which) in str(error.value)
        with pytest.raises(CheckpointError, match="no checkpoint has a score.*1, 12"):
            checkpoints.restore("best", shapes(state))


def test_saving_says_nothing(folder, capfd, recwarn):
    with CheckpointManager(folder, keep=1) as checkpoints:
        for step in range(3):
            checkpoints.save(step, make_state(), META, {"bleu": 1.0})
        checkpoints.restore("best", shapes(make_state()))
    out, err = capfd.readouterr()
    assert out + err == "" and not recwarn.list
