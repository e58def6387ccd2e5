"""Sentences in, sentences out: as many, in the same order."""

import copy
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from data.batch import EOS, pad_rows
from data.tokenizer import Vocabulary
from decode import compile
from decode.batching import batches, split_text
from decode.beam import Hypotheses
from decode.mbr import expected_utilities
from decode.options import InputError, SearchOptions
from decode.search import search
from decode.weights import PRECISIONS, pack
from model import Transformer
from model.sharding import batch_sharding, batch_shards, make_mesh, replicated


@dataclass(frozen=True)
class Hypothesis:
    """One translation: text, normalised score, and its tokens' log-probabilities.

    `parts` are the source's ids and the output's, each with EOS, of every piece that was searched
    for alone: one, but for a long sentence that was cut.
    """

    text: str
    score: float
    token_scores: tuple[float, ...]
    parts: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()

    @property
    def tokens(self) -> tuple[int, ...]:
        """The whole output's ids, each part's EOS among them."""
        return tuple(token for _, output in self.parts for token in output)


@dataclass(frozen=True)
class _Piece:
    """What is searched for at once: a sentence, or a part of a long one."""

    owner: int  # the sentence's number
    gap: str  # what stands between it and the piece before
    ids: list[int]
    prefix: list[int]
    seed: int


class Translator:
    """A model, its parameters and its vocabulary as a function from sentences to sentences.

    Sentences of like length are searched together in batches of few fixed shapes: source lengths
    are powers of two, rows fill `tokens_per_batch` source positions. What a sentence becomes does
    not depend on its batch. `max_input` is what happens to an input of more tokens than that:
    "split:256" translates it in pieces, cut at sentence ends or else between words, and
    "refuse:256" raises InputError with the line's number. `others` are further models with their
    parameters, of the same vocabulary, that make an ensemble with the first. `precision` is that of
    the matrices: float32 whatever the model was trained in, or else bfloat16 or int8, which are
    faster and a little less exact (decode/weights.py).

    `watch` hears what each sentence has become so far, its number and the text of the likeliest
    output, after every token; it is called from within the search.

    Every device of the mesh searches for its own rows, with all weights and without a word to the
    others.
    """

    def __init__(
        self,
        model: Transformer,
        params,
        vocabulary: Vocabulary,
        mesh: Mesh | None = None,
        options: SearchOptions | None = None,
        *,
        others: Sequence[tuple[Transformer, object]] = (),
        precision: str = "float32",
        tokens_per_batch: int = 2048,
        max_input: str = "split:256",
        watch: Callable[[int, str], None] | None = None,
    ):
        if precision not in PRECISIONS:
            raise InputError(f"--precision={precision} is not one of: {', '.join(PRECISIONS)}")
        policy, _, size = max_input.partition(":")
        if policy not in ("split", "refuse") or not (size or "256").isdecimal() or size == "0":
            raise InputError(f"--max_input={max_input} is not split:TOKENS or refuse:TOKENS")
        self.options = options = options or SearchOptions()
        if options.beam_size > model.config.target_vocab:
            raise InputError(
                f"--beam_size={options.beam_size} must be from 1 to the vocabulary's size, "
                f"{model.config.target_vocab}"
            )
        models = [(model, params), *others]
        self.split, self.max_input = policy == "split", int(size or "256")
        tables = [m.config.max_length for m, _ in models if m.config.positions == "learned"]
        self.max_output = min(tables, default=None)
        if tables:  # there is no position beyond the learned table
            self.max_input = min(self.max_input, self.max_output - 1)
        self.vocabulary, self.tokens_per_batch = vocabulary, tokens_per_batch
        self.mesh = mesh or make_mesh(devices=jax.devices()[:1])
        self._watch = watch
        configs = tuple(m.config for m, _ in models)
        self._packs = [
            jax.jit(partial(pack, c, precision=precision), out_shardings=replicated(self.mesh))
            for c in configs
        ]
        self.weights = tuple(make(p) for make, (_, p) in zip(self._packs, models, strict=True))
        self._search = compile.jit(
            partial(
                _seeded_search,
                configs,
                mesh=self.mesh,
                options=options,
                watch=self._watched if watch else None,
            ),
            precision,
            static_argnames="max_length",
        )
        self.shapes: set[tuple[int, ...]] = set()  # (rows, source, prefix): a compilation each

    def with_params(self, params) -> "Translator":
        """The same translator for other parameters of the same shapes; compiles nothing anew."""
        other = copy.copy(self)
        other.weights = (self._packs[0](params), *self.weights[1:])
        return other

    def translate(
        self, sentences: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> list[str]:
        """The best translation of each sentence; an empty one stays empty."""
        return [found[0].text for found in self.hypotheses(sentences, progress)]

    def hypotheses(
        self,
        sentences: Sequence[str],
        progress: Callable[[int], None] | None = None,
        prefixes: Sequence[str] | None = None,
    ) -> list[list[Hypothesis]]:
        """The `n_best` hypotheses of each sentence, best first: at least one, at times fewer.

        `progress` hears how many more sentences are done. Outputs begin with `prefixes` where
        there are some. Raises InputError for a sentence over `max_input` tokens where these are
        refused, and for a prefix that its sentence's length limit has no room for.
        """
        encoded = self.vocabulary.source.encode(sentences)
        pieces = [
            piece
            for number, sentence in enumerate(sentences)
            if sentence.strip()
            for piece in self._pieces(
                number, sentence, encoded[number], prefixes[number] if prefixes else ""
            )
        ]
        prefix_room = max((len(piece.prefix) for piece in pieces), default=0)
        prefix_room = 1 << (prefix_room - 1).bit_length() if prefix_room else 0
        results: dict[int, list[Hypothesis]] = {}
        waiting = Counter(piece.owner for piece in pieces)  # a sentence's pieces not yet found
        if progress:
            progress(len(sentences) - len(waiting))
        for rows, (count, length) in batches(
            [len(piece.ids) for piece in pieces],
            self.tokens_per_batch,
            batch_shards(self.mesh),
            self.max_output,
        ):
            self.shapes.add((count, length, prefix_room))
            batch = [pieces[row] for row in rows]
            found = self._run(batch, count, length, prefix_room)
            results.update(zip(rows, found, strict=True))
            for piece in batch:
                waiting[piece.owner] -= 1
            if progress:
                progress(len({piece.owner for piece in batch if not waiting[piece.owner]}))
        parts: list[list[tuple[str, list[Hypothesis]]]] = [[] for _ in sentences]
        for row, piece in enumerate(pieces):
            parts[piece.owner].append((piece.gap, results[row]))
        return [_joined(each) for each in parts]

    def _pieces(self, number: int, sentence: str, ids: list[int], prefix: str) -> Iterator[_Piece]:
        texts = [("", sentence)]
        if len(ids) > self.max_input:
            if not self.split:
                raise InputError(
                    f"line {number + 1} has {len(ids)} tokens, more than "
                    f"--max_input=refuse:{self.max_input} allows: shorten it, or use "
                    f"--max_input=split:{self.max_input}"
                )
            texts = split_text(sentence, lambda text: len(self._encode(text)) <= self.max_input)
        for gap, text in texts:
            ids = self._encode(text) if text is not sentence else ids
            forced = self.vocabulary.target.encode([prefix])[0] if prefix else []
            if len(forced) >= self._limit(len(ids)):
                raise InputError(
                    f"line {number + 1}: its prefix has {len(forced)} tokens, but the length limit "
                    f"is {self._limit(len(ids))} with the end: shorten it, or raise the limit"
                )
            # Samples follow a sentence's own text, whatever line it stands on.
            yield _Piece(number, gap, ids, forced, zlib.crc32(text.encode()))
            prefix = ""  # a long sentence's first piece begins with it

    def _encode(self, text: str) -> list[int]:
        return self.vocabulary.source.encode([text])[0]

    def _limit(self, source: int) -> int:
        return min(self.options.limit(source), self.max_output or 1 << 30)

    def _run(
        self, pieces: list[_Piece], rows: int, length: int, prefix_room: int
    ) -> Iterator[list[Hypothesis]]:
        limits = np.ones(rows, np.int32)  # rows that only fill the batch end at once
        limits[: len(pieces)] = [self._limit(len(piece.ids)) for piece in pieces]
        seeds = np.zeros(rows, np.uint32)
        seeds[: len(pieces)] = [piece.seed for piece in pieces]
        src = pad_rows([[*piece.ids, EOS] for piece in pieces], rows, length)
        prefix = pad_rows([piece.prefix for piece in pieces], rows, prefix_room)
        owners = np.full(rows, -1, np.int32)
        owners[: len(pieces)] = [piece.owner for piece in pieces]
        batch = (src, limits, prefix, seeds, owners)
        batch = jax.device_put(batch, batch_sharding(self.mesh))
        found = jax.device_get(self._search(self.weights, *batch, max_length=self._limit(length)))
        for row, piece in enumerate(pieces):
            own = jax.tree.map(lambda leaf, row=row: leaf[row], found)
            yield self._best(own, (*piece.ids, EOS))

    def _watched(self, owners: np.ndarray, tokens: np.ndarray, length: int, on: np.ndarray) -> None:
        for owner, row in zip(owners[on], tokens[on, :length].tolist(), strict=True):
            if owner >= 0:
                self._watch(int(owner), self.vocabulary.target.decode([row])[0])

    def _best(self, found: Hypotheses, source: tuple[int, ...]) -> list[Hypothesis]:
        """One sentence's [W,...] arrays -> its `n_best` hypotheses."""
        tokens, scores, lengths, token_scores = map(np.asarray, found)
        there = [w for w in range(len(scores)) if np.isfinite(scores[w])]
        texts = self.vocabulary.target.decode([tokens[w, : lengths[w]].tolist() for w in there])
        ranks = scores[there]
        if self.options.method == "mbr":
            ranks = expected_utilities(texts, self.options.utility)
        order = np.argsort(-ranks, kind="stable")[: self.options.n_best]
        if self.options.method == "sample":  # samples are worth the same: as they were drawn
            order = range(min(len(there), self.options.n_best))
        return [
            Hypothesis(
                texts[i],
                float(scores[w]),
                tuple(token_scores[w, : lengths[w]].tolist()),
                ((source, tuple(tokens[w, : lengths[w]].tolist())),),
            )
            for i in order
            for w in [there[i]]
        ]


def _seeded_search(
    configs, weights, src, limits, prefix, seeds, owners, *, mesh, options, watch, max_length
):
    def shard(weights, src, limits, prefix, seeds, owners):
        keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(options.seed)))(seeds)
        hear = watch and partial(jax.debug.callback, watch, owners)
        return search(
            configs,
            weights,
            src,
            limits,
            prefix,
            keys,
            options=options,
            max_length=max_length,
            watch=hear,
        )

    rows = batch_sharding(mesh).spec
    return jax.shard_map(
        shard,
        mesh=mesh,
        in_specs=(PartitionSpec(), *(rows,) * 5),
        out_specs=rows,
        check_vma=False,  # each device's loop ends when its own rows are done
    )(weights, src, limits, prefix, seeds, owners)


def _joined(parts: list[tuple[str, list[Hypothesis]]]) -> list[Hypothesis]:
    """Hypotheses of a sentence's pieces, rank by rank; their scores add up."""
    if not parts:
        return [Hypothesis("", 0.0, ())]
    gaps = [gap for gap, _ in parts]
    return [
        Hypothesis(
            "".join(gap + part.text for gap, part in zip(gaps, rank, strict=True)),
            sum(part.score for part in rank),
            tuple(score for part in rank for score in part.token_scores),
            tuple(pair for part in rank for pair in part.parts),
        )
        for rank in zip(*(found for _, found in parts), strict=False)
    ]
