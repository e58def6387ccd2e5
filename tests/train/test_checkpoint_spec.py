"""Checkpoints by name, and the mean of several."""

import numpy as np
import pytest

from tests.train.states import META, make_state, same, shapes
from train.checkpoint import CheckpointManager
from train.checkpoint_spec import CheckpointError, ResolvedCheckpoint, resolve

STEPS, RANKED = [10, 20, 30, 40], [30, 10, 40]


@pytest.mark.parametrize(
    ("spec", "choice"),
    [
        (20, ResolvedCheckpoint((20,))),
        ("20", ResolvedCheckpoint((20,))),
        ("last", ResolvedCheckpoint((40,))),
        ("best", ResolvedCheckpoint((30,))),
        ("ema", ResolvedCheckpoint((40,), "ema")),
        ("params:best", ResolvedCheckpoint((30,), "params")),
        ("average:3", ResolvedCheckpoint((20, 30, 40), "params")),
        ("average:1", ResolvedCheckpoint((40,), "params")),
        ("average:best:2", ResolvedCheckpoint((10, 30), "params")),
        ("average:40+10+10", ResolvedCheckpoint((10, 40), "params")),
    ],
)
def test_a_name_means_steps_and_weights(spec, choice):
    assert resolve(spec, STEPS, RANKED) == choice


def test_the_only_checkpoint_is_the_best_whatever_its_score():
    assert resolve("best", [0], []) == ResolvedCheckpoint((0,))
    with pytest.raises(CheckpointError, match="no checkpoint has a score to be the best by"):
        resolve("best", [0, 10], [])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (25, "no checkpoint 25; choose best, last, a step, average:N"),
        ("newest", "no checkpoint 'newest'; .* there are: 10, 20, 30, 40"),
        ("20:best", "no checkpoint '20:best'"),
        ("average:", "no checkpoint 'average:'"),
        (
            "average:5",
            "average:5 needs 5 checkpoints but there are 4: raise train.keep_last before",
        ),
        ("average:best:4", "4 checkpoints with a score but there are 3: raise train.keep_best"),
        ("average:0", "average:0 has no step 0"),
        ("average:10+25", "average:10\\+25 has no step 25"),
        ("average:worst:2", "has no step worst:2"),
        ("params:newest", "no checkpoint 'newest'"),
    ],
)
def test_a_name_that_means_nothing_is_answered_with_what_there_is(spec, message):
    with pytest.raises(CheckpointError, match=message):
        resolve(spec, STEPS, RANKED)


def test_the_mean_is_of_the_parameters_themselves(folder, bits):
    states = {step: make_state(value) for step, value in ((1, 1.0), (2, 5.0), (3, 3.0))}
    with CheckpointManager(folder, keep_best=2) as checkpoints:
        for step, state in states.items():
            checkpoints.save(step, state, META, {"bleu": -abs(step - 2.9)})
    abstract = shapes(states[1].params)
    with CheckpointManager(folder) as checkpoints:
        load = lambda spec: bits(checkpoints.restore_params(spec, abstract))  # noqa: E731
        of = {step: bits(state.params) for step, state in states.items()}
        for spec, steps in {"average:3": (1, 2, 3), "average:best:2": (2, 3)}.items():
            for name, leaf in load(spec).items():
                expected = np.mean([of[step][name] for step in steps], axis=0)
                np.testing.assert_allclose(leaf, expected, rtol=1e-6)
        same(load("ema"), bits(states[3].ema))
        same(load("last"), bits(states[3].ema))
        same(load("params:last"), of[3])
        assert checkpoints.restore_params("average:2", abstract)["w"].sharding == (
            states[1].params["w"].sharding
        )
        with pytest.raises(CheckpointError, match="only weights have an average, not average:2"):
            checkpoints.restore("average:2", shapes(states[1]))
