"""Translator: sentences in, sentences out, in the same order."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data.vocabulary import Vocabulary
from decode import sharded_weights, xla_options
from decode.batching import batches
from decode.hypotheses import Hypothesis, joined, ranked
from decode.inputs import LongInputPolicy, PaddedSizes, SearchBatch, Segment, cut, request, room
from decode.loop import alone
from decode.options import InputError, SearchOptions
from decode.search import search
from decode.shortlist import Shortlist
from decode.weights import PRECISIONS
from model import Transformer
from model.sharding import AXES, make_mesh, put_on_mesh, replicated

# In small batches little is computed for outputs that have ended; large ones keep an accelerator
# busy. Measured on CPUs (experiments/LOG.md).
TOKENS_PER_BATCH = {"cpu": 1536}


class Translator:
    """A model, its parameters and its vocabulary as a function from sentences to sentences.

    Sentences of like length are searched together in batches of few fixed shapes: source lengths
    are those of decode/batching.py, each device's rows fill `tokens_per_batch` source positions, by
    default what it is fastest with. What a sentence becomes does not depend on its batch.
    `max_input` is what happens to an input of more tokens than that: "split:256" translates it in
    pieces, cut at sentence ends or else between words, and "refuse:256" raises InputError with the
    line's number.
    `others` are further models with their parameters, of the same vocabulary, that make an ensemble
    with the first. `precision` is that of the matrices: float32 whatever the model was trained in,
    or else bfloat16 or int8, which are faster and a little less exact (decode/weights.py).
    `language` is the outputs' code, by which minimum Bayes risk with BLEU counts words. Where there
    is a `shortlist`, outputs have none but its words (decode/shortlist.py).

    `ladder` has the shapes (rows, source length) to search in, where one of them holds a batch:
    `prepare` compiles them ahead (decode/batching.py).

    `watch` hears what each sentence has become so far after every token: its number, that of its
    piece (0, but for a long sentence that was cut), the text of the likeliest beam (of the first
    group) or of the first sample, and False; it is called from within the search. When a piece is
    done it hears the text that was chosen, and True. Tokens of one sentence come in order, those of
    several as they may.

    Every device of the mesh searches for rows of its own, without a word to the others; but those
    along its fsdp and tensor axes share one set of weights, and so every step
    (decode/sharded_weights.py).
    Where the mesh spans processes, all of them call the same with the same sentences.
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
        tokens_per_batch: int | None = None,
        max_input: str = "split:256",
        language: str = "",
        ladder: Sequence[tuple[int, int]] = (),
        shortlist: Shortlist | None = None,
        watch: Callable[[int, int, str, bool], None] | None = None,
    ):
        if precision not in PRECISIONS:
            raise InputError(f"--precision={precision} is not one of: {', '.join(PRECISIONS)}")
        options = options or SearchOptions()
        models = [(model, params), *others]
        sizes = sorted({(m.config.vocab_size, m.config.target_vocab) for m, _ in models})
        if len(sizes) > 1:
            raise InputError(
                "an ensemble's models share one vocabulary, but these have (source, target) sizes "
                f"{', '.join(map(str, sizes))}"
            )
        # There is no position beyond a learned table.
        self.max_output = min(filter(None, (m.config.longest for m, _ in models)), default=None)
        self.policy = LongInputPolicy(max_input, self.max_output and self.max_output - 1)
        self.vocabulary = vocabulary
        self.tokens_per_batch = tokens_per_batch or TOKENS_PER_BATCH.get(
            jax.default_backend(), 8192
        )
        self.mesh = mesh or make_mesh(devices=jax.devices()[:1])
        self.language = language
        self.ladder = tuple(ladder)
        self._shortlist, self._watch = shortlist, watch
        if shortlist is not None:
            found = len(shortlist.starts) - 1, shortlist.size
            if found != (model.config.vocab_size, model.config.target_vocab):
                raise InputError(
                    f"a shortlist of {found[0]} source words and {found[1]} others does not go "
                    f"with vocabularies of {model.config.vocab_size} and "
                    f"{model.config.target_vocab}"
                )
        configs = tuple(m.config for m, _ in models)
        lay_out = partial(sharded_weights.lay_out, mesh=self.mesh, precision=precision)
        self._packs = [jax.jit(partial(lay_out, c)) for c in configs]
        self.weights = tuple(make(p) for make, (_, p) in zip(self._packs, models, strict=True))
        self._models, self._precision = configs, precision
        self._search_by(options)

    def _search_by(self, options: SearchOptions) -> None:
        options.check_vocabulary(self._models[0].target_vocab)
        self.options = options
        self._search = xla_options.jit(
            partial(
                _sharded_search,
                self._models,
                mesh=self.mesh,
                options=options,
                watch=self._watched if self._watch else None,
            ),
            self._precision,
            split=sharded_weights.parts(self.mesh) > 1,
            static_argnames="max_length",
            # What other processes' devices found can be read once it is on this one's as well.
            out_shardings=replicated(self.mesh) if jax.process_count() > 1 else None,
        )
        self.shapes: set[tuple] = set()  # (rows, source, *Room): a compilation each

    def with_options(
        self, options: SearchOptions, ladder: Sequence[tuple[int, int]] = ()
    ) -> "Translator":
        """Another search over the same weights, in the shapes of `ladder` where they do."""
        other = copy.copy(self)
        other.ladder = tuple(ladder)
        other._search_by(options)
        return other

    def prepare(self, rows: int, source: int) -> None:
        """Compile the search in this shape, by a batch that has no sentence in it."""
        needs = room([])
        list(self._run([], rows, source, needs, []))
        self.shapes.add((rows, source, *needs))

    def with_params(self, params) -> "Translator":
        """The same translator for other parameters of the same shapes; compiles nothing anew."""
        return self._with_first(self._packs[0](params))

    def emptied(self) -> "Translator":
        """What is left without the first model's weights: all that was compiled, and no memory."""
        return self._with_first(None)

    def _with_first(self, weights) -> "Translator":
        other = copy.copy(self)
        other.weights = (weights, *self.weights[1:])
        return other

    def translate(
        self, sentences: Sequence[str], progress: Callable[[float], None] | None = None
    ) -> list[str]:
        """The best translation of each sentence; an empty one stays empty."""
        return [found[0].text for found in self.hypotheses(sentences, progress)]

    def hypotheses(
        self,
        sentences: Sequence[str],
        progress: Callable[[float], None] | None = None,
        prefixes: Sequence[str] | None = None,
        required: Sequence[Sequence[str]] | None = None,
        counts: Sequence[int] | None = None,
    ) -> list[list[Hypothesis]]:
        """The `n_best` hypotheses of each sentence, best first: at least one, at times fewer.

        `counts` are how many of them are wanted of each sentence, where that is not all.

        `progress` hears how many more sentences are done after each batch; of a sentence that was
        cut, its pieces are equal parts. A sentence's outputs begin with its own of `prefixes` and
        contain all its `required` words and phrases. Raises InputError for a sentence over
        `max_input` tokens where these are refused, and for a prefix or a phrase that the sentence's
        length limit has no room for or that the vocabulary cannot spell.
        """
        prefixes = prefixes or [""] * len(sentences)
        required = required or [()] * len(sentences)
        counts = counts or [self.options.n_best] * len(sentences)
        if not len(sentences) == len(prefixes) == len(required) == len(counts):
            raise InputError("each sentence has a prefix, a list of required phrases and a count")
        pieces = list(
            cut(
                sentences,
                prefixes,
                required,
                vocabulary=self.vocabulary,
                policy=self.policy,
                options=self.options,
                longest=self.max_output,
            )
        )
        needs = room(pieces)
        results: dict[int, list[Hypothesis]] = {}
        counted = Counter(piece.owner for piece in pieces)
        if progress:
            progress(len(sentences) - len(counted))
        for rows, (count, length) in batches(
            [len(piece.ids) for piece in pieces],
            self.tokens_per_batch,
            self.mesh.size,
            self.max_output,
            self.ladder,
        ):
            self.shapes.add((count, length, *needs))
            batch = [pieces[row] for row in rows]
            found = self._run(batch, count, length, needs, counts)
            results.update(zip(rows, found, strict=True))
            if self._watch:
                for row, piece in zip(rows, batch, strict=True):
                    self._watch(piece.owner, piece.part, results[row][0].text, True)
            if progress:
                progress(sum(1 / counted[piece.owner] for piece in batch))
        parts: list[list[tuple[str, list[Hypothesis]]]] = [[] for _ in sentences]
        for row, piece in enumerate(pieces):
            parts[piece.owner].append((piece.gap, results[row]))
        return [joined(each) for each in parts]

    def _run(
        self,
        pieces: list[Segment],
        rows: int,
        length: int,
        room: PaddedSizes,
        counts: Sequence[int],
    ) -> Iterator[list[Hypothesis]]:
        vocab = self._models[0].target_vocab
        asked = request(pieces, rows, length, room, vocab, self._shortlist)
        longest = self.options.limit(length, self.max_output)
        asked = put_on_mesh(asked, NamedSharding(self.mesh, _ROWS))
        found = jax.device_get(self._search(self.weights, asked, max_length=longest))
        if self._watch:
            jax.effects_barrier()  # what it was told from within comes before what was chosen
        for row, piece in enumerate(pieces):
            own = jax.tree.map(lambda leaf, row=row: leaf[row], found)
            spell, count = self.vocabulary.target.decode, counts[piece.owner]
            yield ranked(own, piece, spell, self.options, count, self.language)

    def _watched(self, owners: np.ndarray, tokens: np.ndarray, length: int, on: np.ndarray) -> None:
        assert self._watch is not None
        rows = zip(owners[on].tolist(), tokens[on, :length].tolist(), strict=True)
        for (owner, part), row in rows:
            if owner >= 0:
                self._watch(owner, part, self.vocabulary.target.decode([row])[0], False)


_ROWS = PartitionSpec(AXES)  # a row is searched for by one device


def _sharded_search(configs, weights, asked: SearchBatch, *, mesh, options, watch, max_length):
    shard = partial(
        search,
        configs,
        options=options,
        max_length=max_length,
        watch=watch and partial(jax.debug.callback, watch),
        most=sharded_weights.most if sharded_weights.parts(mesh) > 1 else alone,
    )
    return jax.shard_map(
        shard,
        mesh=mesh,
        in_specs=(sharded_weights.specs(weights), _ROWS),
        out_specs=_ROWS,
        check_vma=False,  # each device's loop ends when its own rows are done
    )(weights, asked)
