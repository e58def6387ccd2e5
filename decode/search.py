"""A model and its parameters become a step function, and a batch of sources its translations."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from data.batch import BOS, EOS, PAD, UNK
from decode import scoring, stopping, transforms
from decode.beam import Hypotheses, StepFn, beam_search
from decode.diverse import diverse_beam_search
from decode.options import SearchOptions
from decode.sample import drawn, likeliest, sample
from model import Transformer, empty_cache


def make_step(model: Transformer, params, cross, src_mask: Array) -> StepFn:
    """The model's next-token log-probabilities, given one source's `cross` keys and values.

    PAD, BOS and UNK, which stand for no text, cannot be chosen; the other tokens' log-probabilities
    stay what they are, so a hypothesis's score is the one that teacher forcing gives to it.
    """

    def step(tokens, cache, index):
        logits, cache = model.apply(
            {"params": params}, tokens[..., None], cross, src_mask, cache, index, method="decode"
        )
        return _log_probs(logits), cache

    return step


def with_coverage(model: Transformer, params, cross, src_mask: Array) -> StepFn:
    """The same step with a cache (past, covered [B,W,S]): what each source position has received.

    That is cross-attention, its mean over layers and heads, summed over the steps.
    """

    def step(tokens, cache, index):
        past, covered = cache
        (logits, past), sown = model.apply(
            {"params": params},
            tokens[..., None],
            cross,
            src_mask,
            past,
            index,
            method="decode",
            mutable=["intermediates"],
        )
        layers = [sown["intermediates"][f"decoder_{i}"] for i in range(len(cross))]
        weights = sum(layer["cross_attention"]["weights"][0] for layer in layers) / len(layers)
        return _log_probs(logits), (past, covered + weights.mean(1))  # heads; beams were queries

    return step


def ensemble(steps: Sequence[StepFn]) -> StepFn:
    """The mean of several models' probabilities as one step function; its cache is theirs."""

    def step(tokens, caches, index):
        found = [one(tokens, cache, index) for one, cache in zip(steps, caches, strict=True)]
        caches = tuple(cache for _, cache in found)
        if len(found) == 1:
            return found[0][0], caches
        each = jnp.stack([log_probs for log_probs, _ in found])
        return jax.nn.logsumexp(each, axis=0) - jnp.log(jnp.float32(len(found))), caches

    return step


def search(
    models: Sequence[Transformer],
    params: Sequence,
    src: Array,
    limits: Array,
    prefix: Array,
    keys: Array,
    *,
    options: SearchOptions,
    max_length: int,
) -> Hypotheses:
    """src [B,S] (with EOS, PAD after it), limits [B] -> Hypotheses [B,W,...]; pure, to be jitted.

    Several models are an ensemble. Outputs begin with `prefix` [B,P], PAD after it; typed `keys`
    [B] seed samples. `max_length` (static) is the room of the cache: no limit may exceed it.
    """
    o = options
    batch = (src.shape[0], o.width)
    steps, caches, bonus = [], [], None
    for model, p in zip(models, params, strict=True):
        memory = model.apply({"params": p}, src, method="encode")
        cross = model.apply({"params": p}, memory, method="cross_kv")
        cache = empty_cache(model.config, batch, max_length)
        if o.coverage:
            cache = (cache, jnp.zeros((*batch, src.shape[1]), jnp.float32))
        caches.append(cache)
        steps.append((with_coverage if o.coverage else make_step)(model, p, cross, src != PAD))
    if o.coverage:

        def bonus(caches):
            covered = sum(covered for _, covered in caches) / len(caches)
            return scoring.coverage_penalty(covered, src != PAD, o.coverage)

    start = jnp.full(src.shape[0], BOS, jnp.int32)
    common = dict(
        eos=EOS, max_length=max_length, normalise=_normalise(o), transform=_transform(o, prefix)
    )
    find = _method(o, keys, bonus)
    return find(ensemble(steps), tuple(caches), start, limits, **common)


def _log_probs(logits: Array) -> Array:
    logits = logits[..., 0, :]
    ids = jnp.arange(logits.shape[-1], dtype=jnp.int32)[None, None]
    return jnp.where((ids > UNK) | (ids == EOS), jax.nn.log_softmax(logits), -jnp.inf)


def _normalise(o: SearchOptions) -> scoring.Normalise:
    alpha = 0.0 if o.penalty == "none" else o.alpha
    return (scoring.average if o.penalty == "average" else scoring.gnmt)(alpha)


def _transform(o: SearchOptions, prefix: Array) -> transforms.Transform:
    """What the options ask for, in order: the sampler's filters see what the others left."""
    t = transforms
    chosen = [
        (o.repetition_penalty != 1, lambda: t.repetition_penalty(o.repetition_penalty)),
        (o.banned, lambda: t.banned(o.banned)),
        (o.no_repeat_ngrams, lambda: t.no_repeat_ngrams(o.no_repeat_ngrams)),
        (o.min_length > 1, lambda: t.min_length(o.min_length, EOS)),
        (o.temperature != 1, lambda: t.temperature(o.temperature)),
        (o.top_k, lambda: t.top_k(o.top_k)),
        (o.top_p < 1, lambda: t.top_p(o.top_p)),
        (o.min_p, lambda: t.min_p(o.min_p)),
    ]
    steered = t.chain(*(make() for wanted, make in chosen if wanted))
    if not prefix.shape[1]:
        return steered
    lengths = jnp.sum(prefix != PAD, axis=1, dtype=jnp.int32)
    return t.forced_prefix(prefix, lengths, steered)


def _method(o: SearchOptions, keys: Array, bonus):
    if o.method == "greedy":
        return partial(sample, pick=likeliest)
    if o.method in ("sample", "mbr"):
        return partial(sample, pick=drawn(keys), width=o.samples)
    rules = {"first": lambda: stopping.first(o.patience)}
    rules |= {"bounded": stopping.bounded, "never": stopping.never}
    options = dict(beam_size=o.beam_size, stopping=rules[o.stopping](), bonus=bonus)
    if o.groups == 1:
        return partial(beam_search, **options)
    return partial(diverse_beam_search, groups=o.groups, diversity=o.diversity, **options)
