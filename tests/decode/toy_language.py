"""Toy languages, small enough to enumerate every output."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np

from decode.beam import beam_search
from decode.length_normalization import average, gnmt
from decode.loop import NextToken
from decode.sample import greedy, sample
from decode.stopping import when_full

EOS = 0


def language(
    seed: int, batch: int, vocab: int, length: int, sharpness: float = 1.0, eos_bias: float = 0.0
):
    """log_prob(sentence, prefix) -> [V]: a random distribution for every prefix.

    `eos_bias` is added to the logit of EOS.
    """

    def log_prob(sentence: int, prefix: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng([seed, sentence, len(prefix), *(t + 1 for t in prefix)])
        logits = rng.normal(size=vocab) * sharpness
        logits[EOS] += eos_bias
        return (logits - np.log(np.exp(logits).sum())).astype(np.float32)

    # The same as a table indexed by prefixes as base V + 1 numbers, for the jitted step.
    base = vocab + 1
    table = np.zeros((batch, base**length, vocab), np.float32)
    for n in range(length):
        for prefix in itertools.product(range(vocab), repeat=n):
            code = sum((t + 1) * base**i for i, t in enumerate(prefix))
            for b in range(batch):
                table[b, code] = log_prob(b, prefix)
    table = jnp.asarray(table)

    def step(tokens, cache, index):
        """The cache is the number of the prefix: it is wrong unless it follows its beam exactly."""
        code = jnp.where(
            index == 0, cache, cache + (tokens + 1) * base ** jnp.maximum(index - 1, 0)
        )
        # A row may be shifted by any constant if the normalizer includes it.
        offset = jnp.sin(code.astype(jnp.float32))
        log_probs = jax.vmap(lambda rows, c: rows[c])(table, code)
        return NextToken(log_probs + offset[..., None], offset, log_probs[..., EOS] + offset), code

    return log_prob, step


def gnmt_score(alpha):
    """Wu et al.'s length normalization of a sum of log probabilities."""
    return lambda total, n: total / ((5 + n) / 6) ** alpha


def average_score(alpha):
    return lambda total, n: total / n**alpha


# Length normalization of a search, and its equivalent for a plain beam search.
PENALTIES = {
    "none": (gnmt(0.0), gnmt_score(0.0)),
    "gnmt": (gnmt(0.6), gnmt_score(0.6)),
    "long": (gnmt(1.5), gnmt_score(1.5)),
    "average": (average(), average_score(1.0)),
    "root": (average(0.5), average_score(0.5)),
}


def all_continuations(log_prob, live, end=False):
    """All (sum, tokens) that extend those of `live` by one token, best first."""
    return sorted(
        (
            (total + log_prob(prefix)[t], (*prefix, t))
            for total, prefix in live
            for t in range(1 if end else len(log_prob(prefix)))
        ),
        key=lambda c: -c[0],
    )


def all_outputs(log_prob, sentence, vocab, limit, score_fn):
    """All (score, tokens) that end in EOS within the limit, best first; EOS is forced there."""
    outputs = []

    def visit(prefix, total):
        lp = log_prob(sentence, prefix)
        n = len(prefix) + 1
        outputs.append((score_fn(total + lp[EOS], n), (*prefix, EOS)))
        if n < limit:
            for token in range(vocab):
                if token != EOS:
                    visit((*prefix, token), total + lp[token])

    visit((), 0.0)
    return sorted(outputs, key=lambda item: -item[0])


def with_min_length(step, min_length):
    """`step` without EOS before `min_length`."""

    def constrained_step(tokens, cache, index):
        next_token, cache = step(tokens, cache, index)
        end = jnp.where(index + 1 < min_length, -jnp.inf, next_token.eos_logit)
        return next_token._replace(logits=next_token.logits.at[..., EOS].set(end)), cache

    return constrained_step


def run(step, batch, width, alpha, limits, length, search=beam_search, **options):
    if search is beam_search:
        options = {
            "beam_size": width,
            "stopping": when_full(),
            "length_norm": gnmt(alpha),
        } | options
    elif search is sample:
        options = {"select_token": greedy, "length_norm": gnmt(alpha)} | options
    cache = jnp.zeros((batch, width), jnp.int32)
    start = jnp.full(batch, 1, jnp.int32)
    result = jax.jit(
        lambda cache: search(
            step,
            cache,
            start,
            jnp.asarray(limits, jnp.int32),
            eos=EOS,
            max_length=length,
            **options,
        )
    )(cache)
    return jax.tree.map(np.asarray, result)


def stop_after(count):
    """Stopping rule of a plain beam search: `count` finished hypotheses; None: only the limit."""
    return lambda finished, live, n: count is not None and len(finished) >= count


def plain_beam(candidates_of, limit, width, score_fn, is_done):
    """Beam search with lists: the W best finished (score, tokens), best first, and the last step.

    The search is done after n tokens if `is_done(finished, live, n)`, or at the limit. After that
    no hypothesis is added to `finished`, but the live ones are still extended and passed to
    `candidates_of`. `candidates_of(live, n)` returns the candidates (sum, tokens) of n tokens,
    best first.
    """
    live, finished, end = [(0.0, ())], [], None
    for n in range(1, limit + 1):
        candidates = candidates_of(live, n)
        live = [c for c in candidates[: 2 * width] if c[1][-1] != EOS][:width]
        if end is None:
            finished += [(score_fn(total, n), t) for total, t in candidates[:width] if t[-1] == EOS]
            finished.sort(key=lambda c: -c[0])
            end = n if n == limit or is_done(finished, live, n) else None
    return finished[:width], end
