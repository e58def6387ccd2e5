"""What comes back from the disk is what went there, or a plain word about why not."""

import errno
import json
import os
import threading

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from orbax.checkpoint import v1 as ocp

from model.sharding import make_mesh
from train.checkpoint import CheckpointError, Checkpoints
from train.state import TrainState

META = {"vocabulary": "abc", "seconds": 12.5}


def make_state(value=1.0, mesh=(2, 2, 2), ema=True, width=8, sgd=False):
    mesh = make_mesh(*mesh)
    layout = {"w": NamedSharding(mesh, P("fsdp", "tensor")), "bias": NamedSharding(mesh, P())}
    params = {
        "w": value * jax.random.normal(jax.random.key(1), (4, width)),
        "bias": jnp.float32([0, np.pi]),
    }
    place = lambda tree: jax.tree.map(jax.device_put, tree, layout)  # noqa: E731
    params = place(params)
    whole = lambda x: jax.device_put(x, NamedSharding(mesh, P()))  # noqa: E731
    return TrainState(
        whole(jnp.int32(7)),
        params,
        jax.tree.map(
            lambda x: x if x.ndim else whole(x),
            (optax.sgd if sgd else optax.adam)(0.1).init(params),
        ),
        whole(jax.random.key(3)),
        jax.tree.map(lambda x: x / 3, params) if ema else None,
    )


def shapes(state):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run" / "checkpoints"


@pytest.mark.parametrize("ema", [True, False])
def test_a_state_comes_back_bit_for_bit(folder, bits, ema):
    state = make_state(ema=ema)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(7, state, META)
    with Checkpoints(folder) as checkpoints:
        back = checkpoints.restore("last", shapes(state))
        assert checkpoints.meta("last") == META
    same(bits(back), bits(state))
    assert jax.tree.map(lambda x: x.sharding, back) == jax.tree.map(lambda x: x.sharding, state)
    assert jax.random.key_impl(back.rng) == jax.random.key_impl(state.rng)


def test_a_state_comes_back_on_another_mesh(folder, bits):
    state, other = make_state(mesh=(2, 2, 2)), make_state(0.0, mesh=(4, 1, 2))
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(7, state, META)
        back = checkpoints.restore(7, shapes(other))
    same(bits(back), bits(state))
    assert back.params["w"].sharding == other.params["w"].sharding


@pytest.mark.parametrize("ema", [True, False])
def test_decoding_reads_the_average_or_else_the_parameters(folder, bits, ema):
    state = make_state(ema=ema)
    shape_only = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state.params)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(7, state, META)
    with Checkpoints(folder) as checkpoints:
        for abstract in (shapes(state.params), shape_only):
            same(bits(checkpoints.restore_params("last", abstract)), bits(state.weights))


def test_what_is_saved_is_the_state_of_that_moment(folder, bits):
    state = make_state()
    expected = bits(state)
    update = jax.jit(lambda s: jax.tree.map(lambda x: x * 2, s), donate_argnums=0)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, state, META)
        update(state.params)  # takes the memory while the save is under way
        assert state.params["w"].is_deleted()
        same(bits(checkpoints.restore(1, shapes(make_state(0.0)))), expected)


def test_the_last_and_the_best_are_kept_and_known_after_a_restart(folder):
    bleu = {1: 5.0, 2: None, 3: 9.0, 4: 9.0, 5: None, 6: 1.0, 7: 2.0, 8: None}
    state = make_state(ema=False)
    with Checkpoints(folder, keep=2) as checkpoints:
        for step, score in list(bleu.items())[:5]:
            measured = {"loss": 0.1} | ({} if score is None else {"bleu": score})
            checkpoints.save(step, state, META, measured)
        checkpoints.wait()
        assert checkpoints.steps() == [4, 5]
    with Checkpoints(folder, keep=2) as checkpoints:
        assert checkpoints.best_step() == 4  # the later of equals
        for step, score in list(bleu.items())[5:]:
            checkpoints.save(step, state, META, None if score is None else {"bleu": score})
    with Checkpoints(folder, keep=2) as checkpoints:
        assert (checkpoints.steps(), checkpoints.best_step()) == ([4, 7, 8], 4)
        assert checkpoints.metrics("best") == {"loss": 0.1, "bleu": 9.0}
        assert checkpoints.metrics("last") is None
    assert sorted(os.listdir(folder)) == ["4", "7", "8"]


def test_a_step_can_be_saved_again(folder, bits):
    first, second = make_state(1.0), make_state(2.0)
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, first, META)
        checkpoints.save(1, second, META)
        same(bits(checkpoints.restore(1, shapes(first))), bits(second))


def test_a_save_cut_short_is_not_listed_and_is_swept_up_by_the_next_writer(folder):
    state = make_state()
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, state, META)
    torn = folder / "5.orbax-checkpoint-tmp"
    torn.mkdir()
    (torn / "part").write_bytes(b"x")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.steps() == [1]
        assert torn.exists()  # who only reads may be looking at a save that is under way
        checkpoints.save(2, state, META)
    assert not torn.exists()
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.steps() == [1, 2]


def test_looking_creates_nothing(folder):
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.steps() == [] and checkpoints.best_step() is None
        with pytest.raises(CheckpointError, match="holds no checkpoints"):
            checkpoints.restore_params("best", {})
    assert not folder.parent.exists()


@pytest.mark.parametrize("which", [3, "3", "newest", -1])
def test_a_step_that_is_not_there_is_answered_with_those_that_are(folder, which):
    state = make_state()
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, state, META)
        checkpoints.save(12, state, META)
        assert checkpoints.meta("12") == META
        with pytest.raises(CheckpointError) as error:
            checkpoints.restore(which, shapes(state))
        assert "1, 12" in str(error.value) and repr(which) in str(error.value)
        with pytest.raises(CheckpointError, match="no checkpoint has a bleu.*1, 12"):
            checkpoints.restore("best", shapes(state))


def one_line(error, capfd):
    assert "\n" not in str(error.value)
    out, err = capfd.readouterr()
    assert out + err == ""
    return str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(width=16), "w is (4, 8) there and (4, 16) here"),
        (dict(sgd=True), "opt_state/0/count is () there and absent here"),
        (dict(ema=True), "holds no ema"),
    ],
    ids=str,
)
def test_a_state_of_another_run_is_refused(folder, capfd, change, words):
    with Checkpoints(folder) as checkpoints:
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
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, state, META)
        checkpoints.save(2, state, META)
    for path in (folder / "2" / "params").glob(part):
        damage(path)
    with Checkpoints(folder) as checkpoints:
        with pytest.raises(CheckpointError) as error:
            checkpoints.restore(2, shapes(state))
        assert "step 2 is damaged, choose another of 1, 2" in one_line(error, capfd)
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
    with Checkpoints(folder) as checkpoints:
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
    with Checkpoints(folder) as checkpoints:
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

    with Checkpoints(folder) as checkpoints:
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
    with Checkpoints(folder) as checkpoints:
        same(bits(checkpoints.restore("last", shapes(state))), bits(state))


def test_saving_says_nothing(folder, capfd, recwarn):
    with Checkpoints(folder, keep=1) as checkpoints:
        for step in range(3):
            checkpoints.save(step, make_state(), META, {"bleu": 1.0})
        checkpoints.restore("best", shapes(make_state()))
    out, err = capfd.readouterr()
    assert out + err == "" and not recwarn.list


def test_a_late_writer_leaves_nothing_unfinished(tmp_path):
    unfinished = tmp_path / "7.orbax-checkpoint-tmp" / "rest"
    unfinished.mkdir(parents=True)
    late = threading.Timer(0.15, lambda: unfinished.mkdir(parents=True, exist_ok=True))
    late.start()
    Checkpoints(tmp_path)._sweep()
    late.join()
    assert not any(tmp_path.iterdir())
