"""Lexical constraints: required phrases, by dynamic beam allocation (Post and Vilar 2018).

Hypotheses that lack the same number of required tokens share a bank, and a beam's slots are dealt
to the banks in turn, so that hypotheses with and without a phrase do not crowd each other out. The
missing tokens are computed from the outputs themselves; there is no extra state.
Axes: B batch, W beam, L buffer length, V vocabulary, P phrases of up to N tokens, C candidates.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from decode.beam import SelectCandidates
from decode.loop import gather_beams
from decode.transforms import Transform, beam_indices

NO_TOKEN = -1  # padding


class LexicalConstraints(NamedTuple):
    """Required phrases of each sentence: tokens [B,P,N] of lengths sizes [B,P]."""

    tokens: Array
    sizes: Array

    def each(self, width: int) -> Array:
        """All phrases' tokens for each of a sentence's beams, [B,W,P*N], padded with NO_TOKEN."""
        batch, _, longest = self.tokens.shape
        real = jnp.arange(longest, dtype=jnp.int32)[None, None] < self.sizes[..., None]
        tokens = jnp.where(real, self.tokens, NO_TOKEN).reshape(batch, 1, -1)
        return jnp.broadcast_to(tokens, (batch, width, tokens.shape[2]))


def enforce(phrases: LexicalConstraints, limits: Array, eos: int, then: Transform) -> Transform:
    """Block EOS until an output contains its `phrases`, and always reserve room for them.

    If only a token of a missing phrase leaves that room, such a token is forced, even against
    `then`; everywhere else `then` is applied. Phrases and EOS must fit `limits` [B] one after the
    other: tokens that two phrases could share count in both.
    """

    def apply(log_probs, tokens, index):
        done, latest = _satisfied(phrases, tokens, index)
        unmet = jnp.where(done, 0, phrases.sizes[:, None]).sum(-1)  # [B,W]
        room = jnp.maximum(limits - index - 2, 0)[:, None]  # after the next token, without EOS
        phrase_ids = phrases.each(tokens.shape[1])
        helps = (_unmet(phrases, done, latest, phrase_ids) <= room[..., None]) & (
            phrase_ids != NO_TOKEN
        )
        helps = (
            jnp.zeros(log_probs.shape, bool).at[*beam_indices(phrase_ids), phrase_ids].max(helps)
        )
        forced = jnp.where(helps, log_probs, -jnp.inf)
        steered = jnp.where((unmet > room)[..., None], forced, then(log_probs, tokens, index))
        return steered.at[..., eos].set(jnp.where(unmet > 0, -jnp.inf, steered[..., eos]))

    return apply


def dynamic_beam_allocation(
    phrases: LexicalConstraints, width: int, top_k=jax.lax.top_k
) -> SelectCandidates:
    """Select candidates for `width` beams, dealt to the banks in turn: each bank's best first.

    The candidates are every beam's best tokens and all tokens of phrases. If nothing is required,
    all share one bank, and the result is that of `top_continuations`.
    """

    def select_candidates(scores, log_probs, tokens, index):
        batch, beams, vocab = log_probs.shape
        _, best = top_k(log_probs, min(2 * width, vocab))
        phrase_ids = phrases.each(beams)
        options = jnp.concatenate([best.astype(jnp.int32), phrase_ids], axis=2)  # [B,W,C]
        count = options.shape[2]
        # The best tokens are distinct, so only a phrase's token can repeat an earlier candidate.
        earlier = jnp.tri(phrase_ids.shape[2], count, count - phrase_ids.shape[2] - 1, dtype=bool)
        again = ((phrase_ids[..., None] == options[..., None, :]) & earlier[None, None]).any(-1)
        idle = jnp.concatenate(
            [jnp.zeros(best.shape, bool), again | (phrase_ids == NO_TOKEN)], axis=2
        )
        worth = scores[..., None] + jnp.take_along_axis(log_probs, options, axis=2, mode="clip")
        worth = jnp.where(idle, -jnp.inf, worth).reshape(batch, -1)
        lacking = _unmet(phrases, *_satisfied(phrases, tokens, index), options)
        turns = _bank_order(worth, lacking.reshape(batch, -1))
        _, chosen = jax.lax.top_k(-turns, min(2 * width, beams * count))
        worth, tokens = (
            gather_beams(worth, chosen),
            gather_beams(options.reshape(batch, -1), chosen),
        )
        return worth, (chosen // count).astype(jnp.int32), tokens

    return select_candidates


def _bank_order(worth: Array, lacking: Array) -> Array:
    """The turn in which each of [B,C] candidates gets a slot: every bank's best, second best, ..

    In each round, banks that lack the fewest tokens go first. Candidates worth -inf come last.
    """
    order = jnp.argsort(-worth, axis=1)  # stable: ties keep their order
    # Sort again, by bank: a bank keeps this order, and positions count from its first candidate.
    order = gather_beams(order, jnp.argsort(gather_beams(lacking, order), axis=1))
    bank, position = gather_beams(lacking, order), jnp.arange(worth.shape[1], dtype=jnp.int32)[None]
    begins = jnp.diff(bank, axis=1, prepend=bank[:, :1] - 1) != 0
    rounds = position - jax.lax.cummax(jnp.where(begins, position, 0), axis=1)
    turns = rounds * (lacking.max() + 1) + bank
    turns = jnp.where(jnp.isneginf(gather_beams(worth, order)), jnp.iinfo(jnp.int32).max, turns)
    return jnp.put_along_axis(jnp.zeros_like(turns), order, turns, axis=1, inplace=False)


def _satisfied(phrases: LexicalConstraints, tokens: Array, index: Array) -> tuple[Array, Array]:
    """Phrases within the first `index` of tokens [B,W,L], bool [B,W,P], and the last N-1 tokens.

    The last tokens [B,W,N-1] are NO_TOKEN before the output's beginning.
    """
    length, longest = tokens.shape[2], phrases.tokens.shape[2]
    written = jnp.arange(length, dtype=jnp.int32) < index
    tokens = jnp.where(written[None, None], tokens, NO_TOKEN)
    tokens = jnp.pad(tokens, ((0, 0), (0, 0), (longest - 1, longest - 1)), constant_values=NO_TOKEN)
    latest = jax.lax.dynamic_slice_in_dim(tokens, index, longest - 1, axis=2)
    begins = jnp.ones((*tokens.shape[:2], phrases.tokens.shape[1], length), bool)
    for offset in range(longest):
        shifted = tokens[:, :, None, longest - 1 + offset :][..., :length]
        same = shifted == phrases.tokens[:, None, :, offset, None]
        begins &= same | (phrases.sizes <= offset)[:, None, :, None]
    return begins.any(-1), latest


def _unmet(phrases: LexicalConstraints, done: Array, latest: Array, after: Array) -> Array:
    """Number of required tokens [B,W,C] that an output lacks after each token of `after` [B,W,C].

    If the output ends within a phrase, only the rest of that phrase is lacking. `done` and `latest`
    are the results of `_satisfied` for the output before.
    """
    sizes, longest = phrases.sizes[:, None, None], phrases.tokens.shape[2]
    matched = jnp.zeros((*after.shape, phrases.tokens.shape[1]), jnp.int32)  # [B,W,C,P]
    for count in range(1, longest + 1):
        start = latest[:, :, None, longest - count :] == phrases.tokens[:, None, :, : count - 1]
        last = after[..., None] == phrases.tokens[:, None, None, :, count - 1]
        ends = start.all(-1)[:, :, None] & last & (count <= sizes)
        matched = jnp.where(ends, count, matched)
    missing = jnp.where(done[:, :, None] | (matched == sizes), 0, sizes)
    return missing.sum(-1) - jnp.where(missing > 0, matched, 0).max(-1)
