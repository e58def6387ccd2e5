"""Lexical constraints: required phrases, by dynamic beam allocation (Post and Vilar 2018).

Post & Vilar 2018: hypotheses that lack equally many of the required tokens share a bank, and a
beam's slots are dealt to the banks in turn, so that those that have paid for a phrase and those
that have not do not crowd each other out. What is lacking is read off the tokens themselves;
nothing is carried along.
Axes: B batch, W beam, L buffer length, V vocabulary, P phrases of up to N tokens, C candidates.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from decode.beam import SelectCandidates
from decode.loop import gather_beams
from decode.transforms import Transform, beam_indices

NO_TOKEN = -1  # stands where no token does


class LexicalConstraints(NamedTuple):
    """What each sentence's output must contain: tokens [B,P,N], of which sizes [B,P] are real."""

    tokens: Array
    sizes: Array

    def each(self, width: int) -> Array:
        """All phrases' tokens for each of a sentence's beams, [B,W,P*N]; NOTHING between."""
        batch, _, longest = self.tokens.shape
        real = jnp.arange(longest, dtype=jnp.int32)[None, None] < self.sizes[..., None]
        tokens = jnp.where(real, self.tokens, NO_TOKEN).reshape(batch, 1, -1)
        return jnp.broadcast_to(tokens, (batch, width, tokens.shape[2]))


def enforce(phrases: LexicalConstraints, limits: Array, eos: int, then: Transform) -> Transform:
    """No output ends without its `phrases`, and there is always room left for them.

    Where no other token could follow and leave that room, it is one that a phrase lacks, whatever
    `then` would say; everywhere else `then` is applied. Phrases and EOS must fit `limits` [B]: one
    after the other, for tokens that two phrases might share are counted in both.
    """

    def apply(log_probs, tokens, index):
        done, latest = _satisfied(phrases, tokens, index)
        whole = jnp.where(done, 0, phrases.sizes[:, None]).sum(-1)  # [B,W]
        room = jnp.maximum(limits - index - 2, 0)[:, None]  # behind the next token, but for EOS
        own = phrases.each(tokens.shape[1])
        helps = (_unmet(phrases, done, latest, own) <= room[..., None]) & (own != NO_TOKEN)
        helps = jnp.zeros(log_probs.shape, bool).at[*beam_indices(own), own].max(helps)
        forced = jnp.where(helps, log_probs, -jnp.inf)
        steered = jnp.where((whole > room)[..., None], forced, then(log_probs, tokens, index))
        return steered.at[..., eos].set(jnp.where(whole > 0, -jnp.inf, steered[..., eos]))

    return apply


def dynamic_beam_allocation(
    phrases: LexicalConstraints, width: int, top_k=jax.lax.top_k
) -> SelectCandidates:
    """The candidates for `width` beams, dealt to the banks in turn: each bank's best first.

    There are every beam's best and whatever goes on with a phrase. Where nothing is required all
    share a bank, and the result is that of `top_continuations`.
    """

    def select_candidates(scores, log_probs, tokens, index):
        batch, beams, vocab = log_probs.shape
        _, best = top_k(log_probs, min(2 * width, vocab))
        own = phrases.each(beams)
        options = jnp.concatenate([best.astype(jnp.int32), own], axis=2)  # [B,W,C]
        count = options.shape[2]
        # The best differ from each other: a candidate that came before is a phrase's.
        earlier = jnp.tri(own.shape[2], count, count - own.shape[2] - 1, dtype=bool)
        again = ((own[..., None] == options[..., None, :]) & earlier[None, None]).any(-1)
        idle = jnp.concatenate([jnp.zeros(best.shape, bool), again | (own == NO_TOKEN)], axis=2)
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
    """When each of [B,C] candidates is dealt a slot: every bank's best, every second best, ..

    In each round those go first that lack the least. What is worth nothing comes last.
    """
    order = jnp.argsort(-worth, axis=1)  # stable: the earlier among equals
    # Once more, by banks: in a bank they stay in this order, and count from its first.
    order = gather_beams(order, jnp.argsort(gather_beams(lacking, order), axis=1))
    bank, place = gather_beams(lacking, order), jnp.arange(worth.shape[1], dtype=jnp.int32)[None]
    begins = jnp.diff(bank, axis=1, prepend=bank[:, :1] - 1) != 0
    rounds = place - jax.lax.cummax(jnp.where(begins, place, 0), axis=1)
    turns = rounds * (lacking.max() + 1) + bank
    turns = jnp.where(jnp.isneginf(gather_beams(worth, order)), jnp.iinfo(jnp.int32).max, turns)
    return jnp.put_along_axis(jnp.zeros_like(turns), order, turns, axis=1, inplace=False)


def _satisfied(phrases: LexicalConstraints, tokens: Array, index: Array) -> tuple[Array, Array]:
    """Of the first `index` of tokens [B,W,L]: which phrases they hold [B,W,P], and the last N-1.

    [B,W,N-1] is NOTHING where there are not so many.
    """
    length, longest = tokens.shape[2], phrases.tokens.shape[2]
    there = jnp.arange(length, dtype=jnp.int32) < index
    tokens = jnp.where(there[None, None], tokens, NO_TOKEN)
    tokens = jnp.pad(tokens, ((0, 0), (0, 0), (longest - 1, longest - 1)), constant_values=NO_TOKEN)
    latest = jax.lax.dynamic_slice_in_dim(tokens, index, longest - 1, axis=2)
    begins = jnp.ones((*tokens.shape[:2], phrases.tokens.shape[1], length), bool)
    for place in range(longest):
        here = tokens[:, :, None, longest - 1 + place :][..., :length]
        same = here == phrases.tokens[:, None, :, place, None]
        begins &= same | (phrases.sizes <= place)[:, None, :, None]
    return begins.any(-1), latest


def _unmet(phrases: LexicalConstraints, done: Array, latest: Array, after: Array) -> Array:
    """How many required tokens an output lacks once each of `after` [B,W,C] has followed, [B,W,C].

    Of a phrase that it ends in the middle of, it lacks only the rest. `done` and `latest` are what
    `_satisfied` says of the output before.
    """
    sizes, longest = phrases.sizes[:, None, None], phrases.tokens.shape[2]
    begun = jnp.zeros((*after.shape, phrases.tokens.shape[1]), jnp.int32)  # [B,W,C,P]
    for count in range(1, longest + 1):
        start = latest[:, :, None, longest - count :] == phrases.tokens[:, None, :, : count - 1]
        last = after[..., None] == phrases.tokens[:, None, None, :, count - 1]
        ends = start.all(-1)[:, :, None] & last & (count <= sizes)
        begun = jnp.where(ends, count, begun)
    whole = jnp.where(done[:, :, None] | (begun == sizes), 0, sizes)
    return whole.sum(-1) - jnp.where(whole > 0, begun, 0).max(-1)
