"""Lexical constraints: required phrases, by dynamic beam allocation (Post and Vilar 2018).

Hypotheses with the same number of missing required tokens share a bank, and a beam's slots are
assigned to the banks in turn, so that hypotheses with and without a phrase both stay in the beam.
The missing tokens are computed from the outputs themselves; there is no extra state.
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

    def beam_tokens(self, width: int) -> Array:
        """All phrases' tokens for each of a sentence's beams, [B,W,P*N], padded with NO_TOKEN."""
        batch, _, longest = self.tokens.shape
        valid = jnp.arange(longest, dtype=jnp.int32)[None, None] < self.sizes[..., None]
        tokens = jnp.where(valid, self.tokens, NO_TOKEN).reshape(batch, 1, -1)
        return jnp.broadcast_to(tokens, (batch, width, tokens.shape[2]))


def enforce(phrases: LexicalConstraints, limits: Array, eos: int, inner: Transform) -> Transform:
    """Block EOS until an output contains its `phrases`, and reserve tokens for them.

    If the remaining length requires it, a token of a missing phrase is forced, even if `inner`
    masks it; otherwise `inner` is applied. `limits` [B] must fit the concatenation of the phrases
    and EOS: tokens that two phrases could share count in both.
    """

    def apply(log_probs, tokens, index):
        done, latest = _satisfied(phrases, tokens, index)
        unmet = jnp.where(done, 0, phrases.sizes[:, None]).sum(-1)  # [B,W]
        remaining = jnp.maximum(limits - index - 2, 0)[:, None]  # after the next token, without EOS
        phrase_ids = phrases.beam_tokens(tokens.shape[1])
        in_time = _unmet(phrases, done, latest, phrase_ids) <= remaining[..., None]
        in_time &= phrase_ids != NO_TOKEN
        allowed = jnp.zeros(log_probs.shape, bool)
        allowed = allowed.at[*beam_indices(phrase_ids), phrase_ids].max(in_time)
        forced = jnp.where(allowed, log_probs, -jnp.inf)
        steered = jnp.where((unmet > remaining)[..., None], forced, inner(log_probs, tokens, index))
        return steered.at[..., eos].set(jnp.where(unmet > 0, -jnp.inf, steered[..., eos]))

    return apply


def dynamic_beam_allocation(
    phrases: LexicalConstraints, width: int, top_k=jax.lax.top_k
) -> SelectCandidates:
    """Select candidates for `width` beams, from the banks in turn: each bank's best first.

    The candidates are every beam's best tokens and all tokens of phrases. Without phrases,
    all share one bank, and the result is that of `top_continuations`.
    """

    def select_candidates(scores, log_probs, tokens, index):
        batch, beams, vocab = log_probs.shape
        _, best = top_k(log_probs, min(2 * width, vocab))
        phrase_ids = phrases.beam_tokens(beams)
        candidates = jnp.concatenate([best.astype(jnp.int32), phrase_ids], axis=2)  # [B,W,C]
        count = candidates.shape[2]
        # The best tokens are distinct, so only a phrase's token can repeat an earlier candidate.
        previous = jnp.tri(phrase_ids.shape[2], count, count - phrase_ids.shape[2] - 1, dtype=bool)
        equal = phrase_ids[..., None] == candidates[..., None, :]
        repeated = (equal & previous[None, None]).any(-1)
        masked = jnp.concatenate(
            [jnp.zeros(best.shape, bool), repeated | (phrase_ids == NO_TOKEN)], axis=2
        )
        gains = jnp.take_along_axis(log_probs, candidates, axis=2, mode="clip")
        ranking = scores[..., None] + gains
        ranking = jnp.where(masked, -jnp.inf, ranking).reshape(batch, -1)
        unmet = _unmet(phrases, *_satisfied(phrases, tokens, index), candidates)
        order = _bank_order(ranking, unmet.reshape(batch, -1))
        _, selected = jax.lax.top_k(-order, min(2 * width, beams * count))
        ranking = gather_beams(ranking, selected)
        tokens = gather_beams(candidates.reshape(batch, -1), selected)
        return ranking, (selected // count).astype(jnp.int32), tokens

    return select_candidates


def _bank_order(ranking: Array, unmet: Array) -> Array:
    """The order in which [B,C] candidates get a slot: every bank's best, second best, ..

    In each round, banks with the fewest unmet tokens are first. Candidates with -inf are last.
    """
    order = jnp.argsort(-ranking, axis=1)  # stable: ties keep their order
    # Then sort by bank: a bank retains this order; positions count from its first candidate.
    order = gather_beams(order, jnp.argsort(gather_beams(unmet, order), axis=1))
    bank, position = gather_beams(unmet, order), jnp.arange(ranking.shape[1], dtype=jnp.int32)[None]
    starts = jnp.diff(bank, axis=1, prepend=bank[:, :1] - 1) != 0
    rounds = position - jax.lax.cummax(jnp.where(starts, position, 0), axis=1)
    turns = rounds * (unmet.max() + 1) + bank
    turns = jnp.where(jnp.isneginf(gather_beams(ranking, order)), jnp.iinfo(jnp.int32).max, turns)
    return jnp.put_along_axis(jnp.zeros_like(turns), order, turns, axis=1, inplace=False)


def _satisfied(phrases: LexicalConstraints, tokens: Array, index: Array) -> tuple[Array, Array]:
    """Phrases within the first `index` of tokens [B,W,L], bool [B,W,P], and the last N-1 tokens.

    The last tokens [B,W,N-1] are NO_TOKEN before the output's start.
    """
    length, longest = tokens.shape[2], phrases.tokens.shape[2]
    written = jnp.arange(length, dtype=jnp.int32) < index
    tokens = jnp.where(written[None, None], tokens, NO_TOKEN)
    tokens = jnp.pad(tokens, ((0, 0), (0, 0), (longest - 1, longest - 1)), constant_values=NO_TOKEN)
    latest = jax.lax.dynamic_slice_in_dim(tokens, index, longest - 1, axis=2)
    starts = jnp.ones((*tokens.shape[:2], phrases.tokens.shape[1], length), bool)
    for offset in range(longest):
        shifted = tokens[:, :, None, longest - 1 + offset :][..., :length]
        equal = shifted == phrases.tokens[:, None, :, offset, None]
        starts &= equal | (phrases.sizes <= offset)[:, None, :, None]
    return starts.any(-1), latest


def _unmet(phrases: LexicalConstraints, done: Array, latest: Array, after: Array) -> Array:
    """Number of unmet required tokens [B,W,C] after each token of `after` [B,W,C].

    If the output ends within a phrase, only the remaining tokens of that phrase count. `done` and
    `latest` are the results of `_satisfied` for the previous output.
    """
    sizes, longest = phrases.sizes[:, None, None], phrases.tokens.shape[2]
    matched = jnp.zeros((*after.shape, phrases.tokens.shape[1]), jnp.int32)  # [B,W,C,P]
    for count in range(1, longest + 1):
        starts = phrases.tokens[:, None, :, : count - 1]
        start_matches = latest[:, :, None, longest - count :] == starts
        last_matches = after[..., None] == phrases.tokens[:, None, None, :, count - 1]
        matches = start_matches.all(-1)[:, :, None] & last_matches & (count <= sizes)
        matched = jnp.where(matches, count, matched)
    missing = jnp.where(done[:, :, None] | (matched == sizes), 0, sizes)
    return missing.sum(-1) - jnp.where(missing > 0, matched, 0).max(-1)
