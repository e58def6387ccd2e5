"""Build a search from models, weights and options."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from data.batch import BOS, EOS, PAD, UNK
from decode import kv_cache, length_normalization, stopping, topk, transforms
from decode.batching import length_buckets
from decode.beam import beam_searcher
from decode.diverse import diverse_beam_searcher
from decode.family import Generates
from decode.lexical_constraints import LexicalConstraints, dynamic_beam_allocation, enforce
from decode.loop import (
    CacheOps,
    Hypotheses,
    NextToken,
    Search,
    StepFn,
    SyncCount,
    gather_beams,
    identity,
    run_compacted,
)
from decode.options import SearchOptions
from decode.prefix_constraint import enforce_completions
from decode.sample import greedy, sampled, sampler
from decode.search_batch import SearchBatch
from decode.token_constraints import RULES, TokenConstraints, next_token
from model import Transformer

# The last quarter of a batch is compacted: sentences end at different lengths, and otherwise a
# third of the work was for sentences that had ended (experiments/LOG.md).
_TAIL = 4


def reference_step(
    model: Transformer, params, cross, src_mask: Array, rules: TokenConstraints = RULES
) -> StepFn:
    """The step function of the Flax model itself, given one source's `cross` keys and values.

    PAD, BOS and UNK, which are not text, are masked, and so is EOS before `min_length`; the other
    tokens' log-probabilities are unchanged, so a hypothesis has the same score as in teacher
    forcing. `rules` change this (`TokenConstraints`). The cache is `model.init_cache`. Tests
    compare `make_step` with this reference.
    """

    def step(tokens, cache, index):
        logits, cache = model.apply(
            {"params": params}, tokens[..., None], cross, src_mask, cache, index, method="decode"
        )
        logits = logits[..., 0, :]
        special = logits[..., : UNK + 1]
        return next_token(logits, special, model.config.target_vocab, index, rules), cache

    return step


def make_step(
    family: Generates,
    weights: Any,
    context: Any,
    coverage: bool = False,
    rules: TokenConstraints = RULES,
) -> StepFn:
    """The step function of a model family, after `family.start` returned `context`.

    Its cache is (the family's cache, coverage): with `coverage`, the attention that each input
    position received in all steps so far, [B,W,S]. A cache of one beam represents W equal beams,
    as at the start of a search. The padding of the last block of logits is masked.
    """

    def step(tokens, cache, index):
        (beam_cache, coverage_sum), (batch, width) = cache, tokens.shape
        rows, cached_beams, _ = beam_cache.ancestry.shape
        beams = rows * cached_beams // batch
        tokens = tokens[:, :beams]
        hidden, beam_cache, attention_mass = family.step(
            weights, context, tokens, beam_cache, index
        )
        coverage_sum = coverage_sum + attention_mass if coverage else None
        logits, special = family.logits(weights, hidden)
        result = next_token(logits, special, family.config.target_vocab, index, rules)
        if beams < width:
            result, coverage_sum = jax.tree.map(
                lambda x: jnp.broadcast_to(x, (batch, width, *x.shape[2:])), (result, coverage_sum)
            )
            beam_cache = kv_cache.reorder(beam_cache, jnp.zeros((batch, width), jnp.int32))
        return result, (beam_cache, coverage_sum)

    return step


def cache_stages(max_length: int) -> tuple[int, ...]:
    """Cache lengths at which the cache grows: few, for a small program."""
    return (*takewhile(lambda size: size < max_length, length_buckets()), max_length)


def ensemble(steps: Sequence[StepFn]) -> StepFn:
    """A step function of the mean of several models' probabilities; its cache has all caches."""

    def step(tokens, caches, index):
        outputs = [model(tokens, cache, index) for model, cache in zip(steps, caches, strict=True)]
        caches = tuple(cache for _, cache in outputs)
        if len(outputs) == 1:
            return outputs[0][0], caches
        log_probs = jnp.stack([out.logits - out.log_normalizer[..., None] for out, _ in outputs])
        eos_log_probs = jnp.stack([out.eos_logit - out.log_normalizer for out, _ in outputs])
        count = jnp.log(jnp.float32(len(outputs)))
        mean, eos_mean = (jax.nn.logsumexp(x, axis=0) - count for x in (log_probs, eos_log_probs))
        return NextToken(mean, jnp.zeros_like(eos_mean), eos_mean), caches

    return step


def search(
    families: Sequence[Generates],
    weights: Sequence[Any],
    request: SearchBatch,
    *,
    options: SearchOptions,
    max_length: int,
    on_token: Callable[[Array, Array, Array, Array], None] | None = None,
    sync: SyncCount = identity,
    tail: bool = True,
) -> Hypotheses:
    """Search for the outputs of B sentences -> Hypotheses [B,W,...]; pure, to be jitted.

    Several models are an ensemble. `max_length` (static) is the size of the cache, the maximum of
    all limits. `on_token` is that of decode/loop.py, with `request.sentence_ids` [B,2] as an extra
    first argument. For sharded weights (decode/sharded_weights.py), `sync` is that of
    decode/loop.py. Without `tail` a batch is never compacted, as for an unknown batch size
    (jax.export).
    """
    o, (batch, length) = options, request.src.shape
    # Samples are never reordered, so each is a row; beams are slots of one row.
    is_beam = o.method == "beam"
    rows, slots = (batch, o.width) if is_beam else (batch * o.width, 1)
    contexts, caches = [], []
    for family, w in zip(families, weights, strict=True):
        contexts.append(family.start(w, request))
        coverage_sum = jnp.zeros((batch, 1, length)) if o.coverage else None
        caches.append((family.init_cache(rows), coverage_sum))

    def extend(caches, length):
        return tuple(
            (family.extend(w, beam_cache, length, slots), coverage_sum)
            for (beam_cache, coverage_sum), family, w in zip(caches, families, weights, strict=True)
        )

    def reorder(caches, parents):
        return tuple(
            (
                kv_cache.reorder(beam_cache, parents),
                None if coverage_sum is None else gather_beams(coverage_sum, parents),
            )
            for beam_cache, coverage_sum in caches
        )

    def make_search(rows: tuple[SearchBatch, list]) -> Search:
        request, contexts = rows
        mask = request.src != PAD
        rules = TokenConstraints.from_options(o)
        steps = [
            make_step(family, w, context, bool(o.coverage), rules)
            for family, w, context in zip(families, weights, contexts, strict=True)
        ]

        def score_bonus(caches):
            coverage_sum = sum(coverage_sum for _, coverage_sum in caches) / len(caches)
            return length_normalization.coverage_penalty(coverage_sum, mask, o.coverage)

        return build_search(
            o,
            request,
            ensemble(steps),
            max_length=max_length,
            reorder=reorder,
            score_bonus=score_bonus if o.coverage else None,
            on_token=on_token,
        )

    def coalesce(caches):
        return tuple(
            (kv_cache.coalesce(beam_cache), coverage_sum) for beam_cache, coverage_sum in caches
        )

    grows = any(family.cache_grows for family in families)
    stages = cache_stages(max_length) if grows else (max_length,)
    ops = CacheOps(reorder, extend, stages, slots > 1, coalesce)
    tail_rows = batch // _TAIL if tail and batch >= 2 * _TAIL else 0
    return run_compacted(make_search, (request, contexts), tuple(caches), ops, tail_rows, sync)


def build_search(
    options: SearchOptions,
    request: SearchBatch,
    step: StepFn,
    *,
    max_length: int,
    reorder: Callable[[object, Array], object],
    score_bonus: Callable[[object], Array] | None = None,
    on_token: Callable[[Array, Array, Array, Array], None] | None = None,
) -> Search:
    """Build the search of `request` with any step function; arguments as in decode/beam.py.

    `on_token` is that of `search`.
    """
    return _method(options, request, score_bonus, reorder)(
        step,
        jnp.full(request.limits.shape, BOS, jnp.int32),
        request.limits,
        eos=EOS,
        max_length=max_length,
        length_norm=_length_norm(options),
        transform=_transform(options, request),
        on_token=on_token and partial(on_token, request.sentence_ids),
    )


def _length_norm(o: SearchOptions) -> length_normalization.LengthNorm:
    alpha = 0.0 if o.penalty == "none" else o.alpha
    rule = length_normalization.average if o.penalty == "average" else length_normalization.gnmt
    return rule(alpha)


def _lengths(tokens: Array) -> Array:
    return jnp.sum(tokens != PAD, axis=-1, dtype=jnp.int32)


def _phrases(request: SearchBatch) -> LexicalConstraints:
    return LexicalConstraints(request.phrases, _lengths(request.phrases))


def _transform(o: SearchOptions, request: SearchBatch) -> transforms.Transform | None:
    """Chain the options' transforms; the sampling filters are last."""
    t, phrases, prefix = transforms, _phrases(request), request.prefix
    filters = [
        (o.repetition_penalty != 1, lambda: t.repetition_penalty(o.repetition_penalty)),
        (o.banned, lambda: t.ban_phrases(o.banned)),
        (o.no_repeat_ngrams, lambda: t.no_repeat_ngrams(o.no_repeat_ngrams)),
        (o.temperature != 1, lambda: t.temperature(o.temperature)),
        (o.top_k, lambda: t.top_k(o.top_k)),
        (o.top_p < 1, lambda: t.top_p(o.top_p)),
        (o.min_p, lambda: t.min_p(o.min_p)),
    ]
    active = [] if request.allowed is None else [t.restrict_to(request.allowed)]
    active += [make_filter() for enabled, make_filter in filters if enabled]
    steered = t.chain(*active)
    if phrases.sizes.shape[1]:
        steered = enforce(phrases, request.limits, EOS, steered)
    if request.completions is not None:
        steered = enforce_completions(
            request.completions, _lengths(prefix), request.limits, steered
        )
    if prefix.shape[1]:
        return t.forced_prefix(prefix, _lengths(prefix), steered)
    steers = active or phrases.sizes.shape[1] or request.completions is not None
    return steered if steers else None


def _method(o: SearchOptions, request: SearchBatch, score_bonus, reorder) -> Callable[..., Search]:
    if o.method == "greedy":
        return partial(sampler, select_token=greedy)
    if o.method in ("sample", "mbr"):
        keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(o.seed)))(request.seeds)
        return partial(sampler, select_token=sampled(keys), width=o.num_samples)
    rules = {"full": lambda: stopping.when_full(o.patience), "unbeaten": stopping.when_unbeaten}
    rules |= {"unbeatable": stopping.when_unbeatable, "limit": stopping.at_limit}
    options = dict(beam_size=o.beam_size, stopping=rules[o.stopping](), score_bonus=score_bonus)
    options |= dict(free_eos_at_limit=o.free_eos_at_limit)
    options |= dict(top_k=topk.blockwise_top_k, reorder=reorder)
    if request.phrases.shape[1]:
        options |= dict(
            select_candidates=dynamic_beam_allocation(
                _phrases(request), o.beam_size, topk.blockwise_top_k
            )
        )
    if o.num_groups == 1:
        return partial(beam_searcher, **options)
    return partial(
        diverse_beam_searcher,
        num_groups=o.num_groups,
        diversity_penalty=o.diversity_penalty,
        **options,
    )
