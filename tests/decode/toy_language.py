"""Tiny made-up languages, small enough to write down every output."""

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
    seed: int, batch: int, vocab: int, length: int, sharpness: float = 1.0, lean: float = 0.0
):
    """log_prob(sentence, prefix) -> [V]: a random distribution for every prefix.

    It leans to EOS by `lean`.
    """

    def log_prob(sentence: int, prefix: tuple[int, ...]) -> np.ndarray:
        rng = np.random.default_rng([seed, sentence, len(prefix), *(t + 1 for t in prefix)])
        logits = rng.normal(size=vocab) * sharpness
        logits[EOS] += lean
        return (logits - np.log(np.exp(logits).sum())).astype(np.float32)

    # The same as a table over prefixes read as numbers in base V + 1, for the jitted step.
    base = vocab + 1
    table = np.zeros((batch, base**length, vocab), np.float32)
    for n in range(length):
        for prefix in itertools.product(range(vocab), repeat=n):
            code = sum((t + 1) * base**i for i, t in enumerate(prefix))
            for b in range(batch):
                table[b, code] = log_prob(b, prefix)
    table = jnp.asarray(table)

    def step(tokens, cache, index):
        """The cache is the prefix's number: wrong unless it follows its beam exactly."""
        code = jnp.where(
            index == 0, cache, cache + (tokens + 1) * base ** jnp.maximum(index - 1, 0)
        )
        # Any constant may be taken out of a row, if the total says so.
        total = jnp.sin(code.astype(jnp.float32))
        log_probs = jax.vmap(lambda rows, c: rows[c])(table, code)
        return NextToken(log_probs + total[..., None], total, log_probs[..., EOS] + total), code

    return log_prob, step


def wu(alpha):
    """Wu et al.'s penalty: what outputs are worth, by sum and length."""
    return lambda total, n: total / ((5 + n) / 6) ** alpha


def mean(alpha):
    return lambda total, n: total / n**alpha


# What a search is given, and the same for a plain one.
PENALTIES = {
    "none": (gnmt(0.0), wu(0.0)),
    "gnmt": (gnmt(0.6), wu(0.6)),
    "long": (gnmt(1.5), wu(1.5)),
    "average": (average(), mean(1.0)),
    "root": (average(0.5), mean(0.5)),
}


def every_choice(log_prob, live, end=False):
    """All (sum, tokens) that are a token longer than those of `live`, best first."""
    return sorted(
        (
            (total + log_prob(prefix)[t], (*prefix, t))
            for total, prefix in live
            for t in range(1 if end else len(log_prob(prefix)))
        ),
        key=lambda c: -c[0],
    )


def every_output(log_prob, sentence, vocab, limit, worth):
    """All (score, tokens) that end in EOS within the limit, best first; EOS is forced there."""
    found = []

    def visit(prefix, total):
        lp = log_prob(sentence, prefix)
        n = len(prefix) + 1
        found.append((worth(total + lp[EOS], n), (*prefix, EOS)))
        if n < limit:
            for token in range(vocab):
                if token != EOS:
                    visit((*prefix, token), total + lp[token])

    visit((), 0.0)
    return sorted(found, key=lambda item: -item[0])


def no_shorter(step, min_length):
    """The step by which no output ends before `min_length`."""

    def later(tokens, cache, index):
        found, cache = step(tokens, cache, index)
        end = jnp.where(index + 1 < min_length, -jnp.inf, found.eos_logit)
        return found._replace(logits=found.logits.at[..., EOS].set(end)), cache

    return later


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
    found = jax.jit(
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
    return jax.tree.map(np.asarray, found)


def enough(count):
    """The rule by which a plain beam is over once `count` have ended; None: at its limit only."""
    return lambda pool, live, n: count is not None and len(pool) >= count


def plain_beam(offered, limit, width, worth, over):
    """A beam in lists: the W best of its pool, (score, tokens) best first, and when it was over.

    That is after n tokens, when `over(pool, live, n)`, or at the limit. Nothing enters the pool
    from then on; the live ones grow on, for what looks at them. `offered(live, n)` gives the
    candidates for n tokens, (sum, tokens), the first choice first.
    """
    live, pool, end = [(0.0, ())], [], None
    for n in range(1, limit + 1):
        candidates = offered(live, n)
        live = [c for c in candidates[: 2 * width] if c[1][-1] != EOS][:width]
        if end is None:
            pool += [(worth(total, n), t) for total, t in candidates[:width] if t[-1] == EOS]
            pool.sort(key=lambda c: -c[0])
            end = n if n == limit or over(pool, live, n) else None
    return pool[:width], end
