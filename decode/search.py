"""Build a search from models, weights and options."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import takewhile

import jax
import jax.numpy as jnp
from jax import Array

from data.batch import BOS, EOS, PAD, UNK
from decode import forward, kv_cache, length_normalization, stopping, topk, transforms
from decode.batching import sizes
from decode.beam import beam
from decode.diverse import diverse_beam
from decode.inputs import SearchBatch
from decode.lexical_constraints import LexicalConstraints, allocate, required
from decode.loop import (
    CacheOps,
    Count,
    Hypotheses,
    NextToken,
    Search,
    StepFn,
    alone,
    gather_beams,
    run_compacted,
)
from decode.options import SearchOptions
from decode.prefix_constraint import completing
from decode.sample import drawn, likeliest, samples
from decode.sharded_weights import whole
from decode.token_constraints import RULES, TokenConstraints, following
from decode.weights import Weights
from model import Transformer, TransformerConfig

# A batch's last quarter goes on by itself: sentences end at different lengths, and a third of what
# was computed was for those that had ended (experiments/LOG.md).
_TAIL = 4


def reference_step(
    model: Transformer, params, cross, src_mask: Array, rules: TokenConstraints = RULES
) -> StepFn:
    """The model's next-token log-probabilities, given one source's `cross` keys and values.

    PAD, BOS and UNK, which stand for no text, cannot be chosen, nor EOS where it would end an
    output before `min_length`; the other tokens' log-probabilities stay what they are, so a
    hypothesis's score is the one that teacher forcing gives to it. `rules` change that
    (`TokenConstraints`).
    Its cache is `model.init_cache`; this is what `make_step` is measured by.
    """

    def step(tokens, cache, index):
        logits, cache = model.apply(
            {"params": params}, tokens[..., None], cross, src_mask, cache, index, method="decode"
        )
        logits = logits[..., 0, :]
        first = logits[..., : UNK + 1]
        return following(logits, first, model.config.target_vocab, index, rules), cache

    return step


def make_step(
    config: TransformerConfig,
    weights: Weights,
    cross,
    src_mask: Array,
    coverage: bool = False,
    rules: TokenConstraints = RULES,
) -> StepFn:
    """The same step over decoding's own weights; what fills the last block is never chosen.

    Its cache is (pool, covered): with `coverage`, what each source position has received in all
    steps so far, [B,W,S], which is cross-attention, its mean over layers and heads. A cache of one
    beam stands for W that are alike, as they are when a search begins.
    """

    def step(tokens, cache, index):
        (past, covered), (batch, width) = cache, tokens.shape
        rows, each, _ = past.ancestry.shape
        beams = rows * each // batch
        tokens = tokens[:, :beams]
        y, past, received = forward.step(config, weights, tokens, cross, src_mask, past, index)
        covered = covered + received if coverage else None
        # With products of its own, what is read apart does not keep the logits from being changed
        # in place: every copy of them costs a fiftieth of a step.
        (logits, first), y = whole((weights.logits, weights.special_logits), y)
        logits, first = logits(y), first(y)
        found = following(logits, first, config.target_vocab, index, rules)
        if beams < width:
            found, covered = jax.tree.map(
                lambda x: jnp.broadcast_to(x, (batch, width, *x.shape[2:])), (found, covered)
            )
            past = kv_cache.reorder(past, jnp.zeros((batch, width), jnp.int32))
        return found, (past, covered)

    return step


def cache_stages(max_length: int) -> tuple[int, ...]:
    """The lengths at which the cache grows: few, so that the program is small."""
    return (*takewhile(lambda size: size < max_length, sizes()), max_length)


def ensemble(steps: Sequence[StepFn]) -> StepFn:
    """The mean of several models' probabilities as one step function; its cache is theirs."""

    def step(tokens, caches, index):
        found = [one(tokens, cache, index) for one, cache in zip(steps, caches, strict=True)]
        caches = tuple(cache for _, cache in found)
        if len(found) == 1:
            return found[0][0], caches
        each = jnp.stack([one.logits - one.total[..., None] for one, _ in found])
        ends = jnp.stack([one.end - one.total for one, _ in found])
        count = jnp.log(jnp.float32(len(found)))
        mean, end = (jax.nn.logsumexp(x, axis=0) - count for x in (each, ends))
        return NextToken(mean, jnp.zeros_like(end), end), caches

    return step


def search(
    configs: Sequence[TransformerConfig],
    weights: Sequence[Weights],
    asked: SearchBatch,
    *,
    options: SearchOptions,
    max_length: int,
    watch: Callable[[Array, Array, Array, Array], None] | None = None,
    most: Count = alone,
    tail: bool = True,
) -> Hypotheses:
    """What is `asked` for B sentences -> Hypotheses [B,W,...]; pure, to be jitted.

    Several models are an ensemble. `max_length` (static) is the room of the cache: no limit may
    exceed it. `watch` is that of decode/loop.py, but hears the sentences' owners [B,2] first. Where
    weights are sharded (decode/sharded_weights.py), `most` is that of decode/loop.py. Without
    `tail` all of a batch go on until its last one ends, as if its size is unknown (jax.export).
    """
    o, (batch, length) = options, asked.src.shape
    mask = asked.src != PAD
    # Samples never change places, so each is a row of its own; beams are slots of one.
    beams = o.method == "beam"
    rows, slots = (batch, o.width) if beams else (batch * o.width, 1)
    sources, caches = [], []
    for config, w in zip(configs, weights, strict=True):
        sources.append(forward.cross_kv(config, w, forward.encode(config, w, asked.src, mask)))
        covered = jnp.zeros((batch, 1, length)) if o.coverage else None
        caches.append((kv_cache.init_beam_cache(config, rows, 1), covered))

    def extend(caches, length):
        return tuple(
            (kv_cache.extend(past, config, length, slots), covered)
            for (past, covered), config in zip(caches, configs, strict=True)
        )

    def reorder(caches, parents):
        return tuple(
            (
                kv_cache.reorder(past, parents),
                None if covered is None else gather_beams(covered, parents),
            )
            for past, covered in caches
        )

    def of(rows: tuple[SearchBatch, list]) -> Search:
        asked, sources = rows
        mask = asked.src != PAD
        rules = TokenConstraints.of(o)
        steps = [
            make_step(config, w, cross, mask, bool(o.coverage), rules)
            for config, w, cross in zip(configs, weights, sources, strict=True)
        ]

        def bonus(caches):
            covered = sum(covered for _, covered in caches) / len(caches)
            return length_normalization.coverage_penalty(covered, mask, o.coverage)

        return build_search(
            o,
            asked,
            ensemble(steps),
            max_length=max_length,
            reorder=reorder,
            bonus=bonus if o.coverage else None,
            watch=watch,
        )

    def joined(caches):
        return tuple((kv_cache.joined(past), covered) for past, covered in caches)

    # A recurrence remembers as much after any number of tokens.
    grows = any(config.recurrence is None for config in configs)
    ends = cache_stages(max_length) if grows else (max_length,)
    ops = CacheOps(reorder, extend, ends, slots > 1, joined)
    few = batch // _TAIL if tail and batch >= 2 * _TAIL else 0
    return run_compacted(of, (asked, sources), tuple(caches), ops, few, most)


def build_search(
    options: SearchOptions,
    asked: SearchBatch,
    step: StepFn,
    *,
    max_length: int,
    reorder: Callable[[object, Array], object],
    bonus: Callable[[object], Array] | None = None,
    watch: Callable[[Array, Array, Array, Array], None] | None = None,
) -> Search:
    """The search for what is `asked` with any step function; arguments as in decode/beam.py.

    `watch` is that of `search`.
    """
    return _method(options, asked, bonus, reorder)(
        step,
        jnp.full(asked.limits.shape, BOS, jnp.int32),
        asked.limits,
        eos=EOS,
        max_length=max_length,
        normalise=_normalise(options),
        transform=_transform(options, asked),
        watch=watch and partial(watch, asked.owners),
    )


def _normalise(o: SearchOptions) -> length_normalization.Normalise:
    alpha = 0.0 if o.penalty == "none" else o.alpha
    kind = length_normalization.average if o.penalty == "average" else length_normalization.gnmt
    return kind(alpha)


def _lengths(tokens: Array) -> Array:
    return jnp.sum(tokens != PAD, axis=-1, dtype=jnp.int32)


def _phrases(asked: SearchBatch) -> LexicalConstraints:
    return LexicalConstraints(asked.phrases, _lengths(asked.phrases))


def _transform(o: SearchOptions, asked: SearchBatch) -> transforms.Transform | None:
    """What the options ask for, in order: the sampler's filters see what the others left."""
    t, phrases, prefix = transforms, _phrases(asked), asked.prefix
    chosen = [
        (o.repetition_penalty != 1, lambda: t.repetition_penalty(o.repetition_penalty)),
        (o.banned, lambda: t.banned(o.banned)),
        (o.no_repeat_ngrams, lambda: t.no_repeat_ngrams(o.no_repeat_ngrams)),
        (o.temperature != 1, lambda: t.temperature(o.temperature)),
        (o.top_k, lambda: t.top_k(o.top_k)),
        (o.top_p < 1, lambda: t.top_p(o.top_p)),
        (o.min_p, lambda: t.min_p(o.min_p)),
    ]
    wanted = [] if asked.allowed is None else [t.only(asked.allowed)]
    wanted += [make() for wanted, make in chosen if wanted]
    steered = t.chain(*wanted)
    if phrases.sizes.shape[1]:
        steered = required(phrases, asked.limits, EOS, steered)
    if asked.completions is not None:
        steered = completing(asked.completions, _lengths(prefix), asked.limits, steered)
    if prefix.shape[1]:
        return t.forced_prefix(prefix, _lengths(prefix), steered)
    steers = wanted or phrases.sizes.shape[1] or asked.completions is not None
    return steered if steers else None


def _method(o: SearchOptions, asked: SearchBatch, bonus, reorder) -> Callable[..., Search]:
    if o.method == "greedy":
        return partial(samples, pick=likeliest)
    if o.method in ("sample", "mbr"):
        keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(o.seed)))(asked.seeds)
        return partial(samples, pick=drawn(keys), width=o.samples)
    known = {"first": lambda: stopping.first(o.patience), "now": stopping.now}
    known |= {"bounded": stopping.bounded, "never": stopping.never}
    options = dict(beam_size=o.beam_size, stopping=known[o.stopping](), bonus=bonus)
    options |= dict(free_end=o.free_end)
    options |= dict(top_k=topk.top_k, reorder=reorder)
    if asked.phrases.shape[1]:
        options |= dict(choose=allocate(_phrases(asked), o.beam_size, topk.top_k))
    if o.groups == 1:
        return partial(beam, **options)
    return partial(diverse_beam, groups=o.groups, diversity=o.diversity, **options)
