"""A model and its parameters become a step function, and a batch of sources its translations."""

import jax
import jax.numpy as jnp
from jax import Array

from data.batch import BOS, EOS, PAD
from decode.beam import Hypotheses, StepFn, beam_search
from decode.sample import greedy
from model import Transformer, empty_cache

METHODS = ("beam", "greedy")


def make_step(model: Transformer, params, cross, src_mask: Array) -> StepFn:
    """The model's next-token log-probabilities, given one source's `cross` keys and values.

    PAD and BOS cannot be chosen; the other tokens' log-probabilities stay what they are, so a
    hypothesis's score is the one that teacher forcing gives to it.
    """

    def step(tokens, cache, index):
        logits, cache = model.apply(
            {"params": params}, tokens[..., None], cross, src_mask, cache, index, method="decode"
        )
        log_probs = jax.nn.log_softmax(logits[..., 0, :])
        return log_probs.at[..., jnp.array([PAD, BOS])].set(-jnp.inf), cache

    return step


def search(
    model: Transformer,
    params,
    src: Array,
    limits: Array,
    *,
    method: str = "beam",
    beam_size: int = 4,
    alpha: float = 0.6,
    max_length: int,
) -> Hypotheses:
    """src [B,S] (with EOS, PAD after it), limits [B] -> Hypotheses; pure, to be jitted.

    `max_length` (static) is the room of the cache: no limit may exceed it.
    """
    apply = lambda *args, method: model.apply({"params": params}, *args, method=method)  # noqa: E731
    cross = apply(apply(src, method="encode"), method="cross_kv")
    step = make_step(model, params, cross, src != PAD)
    start = jnp.full(src.shape[0], BOS, jnp.int32)
    width = beam_size if method == "beam" else 1
    cache = empty_cache(model.config, (src.shape[0], width), max_length)
    common = dict(eos=EOS, alpha=alpha, max_length=max_length)
    if method == "greedy":
        return greedy(step, cache, start, limits, **common)
    return beam_search(step, cache, start, limits, beam_size=beam_size, **common)
