"""Checkpoint specs, such as best and average:5, and averaged parameters."""

import numpy as np
import pytest

from tests.train.states import META, assert_same, make_state, shapes
from train.checkpoint import CheckpointManager
from train.checkpoint_spec import CheckpointError, ResolvedCheckpoint, resolve

STEPS, RANKED = [10, 20, 30, 40], [30, 10, 40]


@pytest.mark.parametrize(
    ("spec", "expected"),
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
def test_a_spec_resolves_to_steps_and_weights(spec, expected):
    assert resolve(spec, STEPS, RANKED) == expected


def test_the_only_checkpoint_is_the_best_even_without_a_score():
    assert resolve("best", [0], []) == ResolvedCheckpoint((0,))
    with pytest.raises(CheckpointError, match="no checkpoint has a score, so none is the best"):
        resolve("best", [0, 10], [])


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (25, "no checkpoint 25; choose best, last, a step, average:N"),
        ("newest", "no checkpoint 'newest'; .* available: 10, 20, 30, 40"),
        ("20:best", "no checkpoint '20:best'"),
        ("average:", "no checkpoint 'average:'"),
        (
            "average:5",
            "average:5 needs 5 checkpoints but only 4 exist: raise train.keep_last before",
        ),
        ("average:best:4", "4 checkpoints with a score but only 3 exist: raise train.keep_best"),
        ("average:0", "average:0 has no step 0"),
        ("average:10+25", "average:10\\+25 has no step 25"),
        ("average:worst:2", "has no step worst:2"),
        ("params:newest", "no checkpoint 'newest'"),
    ],
)
def test_an_invalid_spec_error_lists_the_choices(spec, message):
    with pytest.raises(CheckpointError, match=message):
        resolve(spec, STEPS, RANKED)


def test_the_average_is_of_params_not_of_ema(folder, bits):
    states = {step: make_state(value) for step, value in ((1, 1.0), (2, 5.0), (3, 3.0))}
    with CheckpointManager(folder, keep_best=2) as checkpoints:
        for step, state in states.items():
            checkpoints.save(step, state, META, {"bleu": -abs(step - 2.9)})
    abstract = shapes(states[1].params)
    with CheckpointManager(folder) as checkpoints:
        load = lambda spec: bits(checkpoints.restore_params(spec, abstract))  # noqa: E731
        params_of = {step: bits(state.params) for step, state in states.items()}
        for spec, steps in {"average:3": (1, 2, 3), "average:best:2": (2, 3)}.items():
            for name, leaf in load(spec).items():
                expected = np.mean([params_of[step][name] for step in steps], axis=0)
                np.testing.assert_allclose(leaf, expected, rtol=1e-6)
        assert_same(load("ema"), bits(states[3].ema))
        assert_same(load("last"), bits(states[3].ema))
        assert_same(load("params:last"), params_of[3])
        assert checkpoints.restore_params("average:2", abstract)["w"].sharding == (
            states[1].params["w"].sharding
        )
        with pytest.raises(CheckpointError, match="only weights can be averaged, not average:2"):
            checkpoints.restore("average:2", shapes(states[1]))
