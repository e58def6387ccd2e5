"""Learning rate schedules compared with their formulas, Adam with NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from model.config import ConfigError
from train.optimizer import SCHEDULES, make_optimizer, make_schedule

W, D, END, LR = 40, 512, 200, 0.3

FORMULAS = {  # of the step, counted from 1
    "noam": lambda s: LR * D**-0.5 * min(s**-0.5, s * W**-1.5),
    "inverse_sqrt": lambda s: LR * (s / W if s < W else (W / s) ** 0.5),
    "constant": lambda s: LR * min(s / W, 1),
    "linear": lambda s: LR * (s / W if s < W else max(0, (END - s) / (END - W))),
    "cosine": lambda s: (
        LR * (s / W if s < W else (1 + np.cos(np.pi * min((s - W) / (END - W), 1))) / 2)
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_follow_their_formulas(name):
    schedule = make_schedule(name, learning_rate=LR, warmup_steps=W, d_model=D, decay_steps=END)
    for step in (1, 2, W - 1, W, W + 1, 100, END - 1, END, END + 50):
        expected = pytest.approx(FORMULAS[name](step), rel=1e-5, abs=1e-7)
        assert float(schedule(step - 1)) == expected
        assert float(schedule(jnp.int32(step - 1))) == expected


@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_without_warmup_start_at_the_peak(name):
    schedule = make_schedule(name, learning_rate=LR, warmup_steps=0, d_model=1, decay_steps=10)
    rates = [float(schedule(i)) for i in range(5)]
    assert rates[0] == pytest.approx(LR) and all(np.isfinite(rates)) and max(rates) == rates[0]


def test_the_noam_schedule_peaks_at_7e_4_as_in_the_paper():
    schedule = make_schedule("noam", learning_rate=1.0, warmup_steps=4000, d_model=512)
    rates = [float(schedule(i)) for i in range(3990, 4010)]
    assert 3990 + int(np.argmax(rates)) + 1 == 4000
    assert max(rates) == pytest.approx(6.99e-4, rel=1e-3)


def plain_adam(
    params,
    grads,
    rates,
    decay=0.0,
    decayed=(),
    clip=0.0,
    b1=0.9,
    b2=0.98,
    epsilon=1e-9,
    mu_dtype=None,
):
    """Kingma and Ba's Algorithm 1 in float64; `decay` as in AdamW, `clip` the gradient's norm.

    The first moment is stored with dtype `mu_dtype`.
    """
    cast = lambda x: x if mu_dtype is None else np.asarray(x).astype(mu_dtype).astype(np.float64)  # noqa: E731
    params = {k: v.astype(np.float64) for k, v in params.items()}
    m = dict.fromkeys(params, 0.0)
    v = dict.fromkeys(params, 0.0)
    for t, (rate, grad) in enumerate(zip(rates, grads, strict=True), start=1):
        norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in grad.values()))
        scale = min(1, clip / norm) if clip else 1
        for k in params:
            g = scale * grad[k]
            m[k] = cast(cast(b1) * m[k]) + (1 - b1) * g  # optax casts b1 too
            v[k] = b2 * v[k] + (1 - b2) * g**2
            step = (m[k] / (1 - b1**t)) / (np.sqrt(v[k] / (1 - b2**t)) + epsilon)
            params[k] = params[k] - rate * (step + (decay * params[k] if k in decayed else 0))
            m[k] = cast(m[k])
    return params


@pytest.mark.parametrize(
    "options",
    [
        dict(name="adam"),
        dict(name="adam", clip_norm=0.5),
        dict(name="adam", b1=0.8, b2=0.95, epsilon=1e-3),
        dict(name="adamw", weight_decay=0.1),
        dict(name="adamw", weight_decay=0.1, clip_norm=0.5),
        dict(name="adam", mu_dtype="bfloat16"),
    ],
    ids=str,
)
def test_updates_equal_a_plain_adam(options):
    random = np.random.default_rng(0)
    shapes = {"kernel": (4, 3), "out_bias": (2, 3), "scale": (5,)}
    draw = lambda: {k: random.normal(size=s).astype(np.float32) for k, s in shapes.items()}  # noqa: E731
    params, grads = draw(), [draw() for _ in range(4)]
    schedule = make_schedule("noam", learning_rate=1.0, warmup_steps=2, d_model=16)
    tx = make_optimizer(schedule=schedule, **options)
    actual = jax.tree.map(jnp.asarray, params)
    state = tx.init(actual)
    for grad in grads:
        updates, state = tx.update(jax.tree.map(jnp.asarray, grad), state, actual)
        actual = optax.apply_updates(actual, updates)
    hyperparameters = {k: v for k, v in options.items() if k in ("b1", "b2", "epsilon")}
    expected = plain_adam(
        params,
        grads,
        [16**-0.5 * min(s**-0.5, s * 2**-1.5) for s in (1, 2, 3, 4)],
        decay=options.get("weight_decay", 0.0),
        decayed=("kernel",),
        clip=options.get("clip_norm", 0.0),
        mu_dtype=options.get("mu_dtype"),
        **hyperparameters,
    )
    dtypes = {str(leaf.dtype) for leaf in jax.tree.leaves(state)}
    assert dtypes == {"float32", "int32", options.get("mu_dtype", "float32")}
    for name in shapes:
        np.testing.assert_allclose(actual[name], expected[name], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: make_schedule("cosin", learning_rate=1, warmup_steps=1), "did you mean 'cosine'"),
        (lambda: make_schedule("noam", learning_rate=1, warmup_steps=1), "d_model"),
        (lambda: make_schedule("inverse_sqrt", learning_rate=0, warmup_steps=1), "learning_rate=0"),
        (
            lambda: make_schedule("inverse_sqrt", learning_rate=1, warmup_steps=-1),
            "warmup_steps=-1",
        ),
        (
            lambda: make_schedule("linear", learning_rate=1, warmup_steps=9, decay_steps=9),
            "decay_steps=9 must be above",
        ),
        (lambda: make_optimizer("adanw", 1.0), "did you mean 'adamw'"),
        (lambda: make_optimizer("zzz", 1.0), "one of: adam, adamw"),
        (lambda: make_optimizer("adam", 1.0, mu_dtype="float16"), "float32, bfloat16"),
        (lambda: make_optimizer("adam", 1.0, weight_decay=0.1), "adamw"),
        (lambda: make_optimizer("adam", 1.0, clip_norm=-1.0), "clip_norm=-1.0"),
    ],
)
def test_invalid_settings_are_rejected_in_one_line(call, words):
    with pytest.raises(ConfigError) as error:
        call()
    assert words in str(error.value) and "\n" not in str(error.value)
