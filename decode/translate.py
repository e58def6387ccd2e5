"""Translator: a model as a function from sentences to sentences, in order."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from data.vocabulary import Vocabulary
from decode import sharded_weights
from decode.batching import batches
from decode.families import make_generator
from decode.hypotheses import Hypothesis, concatenate, rank
from decode.inputs import LongInputPolicy, Segment, segment_inputs
from decode.options import InputError, SearchOptions
from decode.search_batch import PaddedSizes, make_search_batch, padded_sizes
from decode.sharded_search import ROWS, compile_search
from decode.shortlist import Shortlist
from decode.weights import PRECISIONS
from model import Transformer
from model.sharding import make_mesh, put_on_mesh

# Small batches waste little work on outputs that have ended; large ones keep an accelerator busy.
# Measured on CPUs (experiments/LOG.md).
TOKENS_PER_BATCH = {"cpu": 1536}


class Translator:
    """A model, its parameters and its vocabulary as a function from sentences to sentences.

    Sentences of similar length are batched, in a few fixed shapes: source lengths are those of
    decode/batching.py, and each device's rows fill `tokens_per_batch` source positions; the default
    is the fastest for the backend. A translation does not depend on its batch.
    `long_input` is the policy for long inputs: "split:256" translates inputs of more than 256
    tokens in segments, split at sentence ends or else between words; "error:256" raises InputError
    with the line number.
    `ensemble` are further models with their parameters and the same vocabulary. `precision` is that
    of the matrices: float32 for any training dtype, or bfloat16 or int8, which are faster and
    slightly less exact (decode/weights.py). `language` is the code of the outputs, for BLEU in
    minimum Bayes risk. With a `shortlist`, outputs contain only its ids (decode/shortlist.py).

    `precompiled_shapes` are shapes (rows, source length) that are preferred for batches they hold;
    `precompile` compiles them in advance (decode/batching.py).

    `on_token` is called within the search after every token, with the index of the sentence, the
    index of the segment (0 unless a long sentence was split), the text so far of the likeliest beam
    (of the first group) or of the first sample, and False. When a segment is done, it is called
    with the final text and True. Calls for one sentence are in order; those for several sentences
    may interleave.

    Each device of the mesh searches its own rows without communication; but devices along the fsdp
    and tensor axes share one set of weights and run in lockstep (decode/sharded_weights.py).
    If the mesh spans processes, all of them make the same calls with the same sentences.
    """

    def __init__(
        self,
        model: Transformer,
        params,
        vocabulary: Vocabulary,
        mesh: Mesh | None = None,
        options: SearchOptions | None = None,
        *,
        ensemble: Sequence[tuple[Transformer, object]] = (),
        precision: str = "float32",
        tokens_per_batch: int | None = None,
        long_input: str = "split:256",
        language: str = "",
        precompiled_shapes: Sequence[tuple[int, int]] = (),
        shortlist: Shortlist | None = None,
        on_token: Callable[[int, int, str, bool], None] | None = None,
    ):
        if precision not in PRECISIONS:
            raise InputError(f"--precision={precision} is not one of: {', '.join(PRECISIONS)}")
        options = options or SearchOptions()
        models = [(model, params), *ensemble]
        sizes = sorted({(m.config.vocab_size, m.config.target_vocab) for m, _ in models})
        if len(sizes) > 1:
            raise InputError(
                "an ensemble's models share one vocabulary, but these have (source, target) sizes "
                f"{', '.join(map(str, sizes))}"
            )
        # A learned position table bounds the output length.
        self.max_output = min(
            filter(None, (m.config.max_positions for m, _ in models)), default=None
        )
        self.policy = LongInputPolicy(long_input, self.max_output and self.max_output - 1)
        self.vocabulary = vocabulary
        self.mesh = mesh or make_mesh(devices=jax.devices()[:1])
        self.tokens_per_batch = tokens_per_batch or TOKENS_PER_BATCH.get(
            self.mesh.devices.flat[0].platform, 8192
        )
        self.language = language
        self.precompiled_shapes = tuple(precompiled_shapes)
        self._shortlist, self._on_token = shortlist, on_token
        if shortlist is not None:
            shape = len(shortlist.starts) - 1, shortlist.size
            if shape != (model.config.vocab_size, model.config.target_vocab):
                raise InputError(
                    f"a shortlist of {shape[0]} source and {shape[1]} target ids does not fit "
                    f"vocabularies of {model.config.vocab_size} and {model.config.target_vocab}"
                )
        families = tuple(make_generator(m.config) for m, _ in models)
        shard_weights = partial(sharded_weights.shard_weights, mesh=self.mesh, precision=precision)
        self._packs = [jax.jit(partial(shard_weights, family)) for family in families]
        self.weights = tuple(pack(p) for pack, (_, p) in zip(self._packs, models, strict=True))
        self._families, self._precision = families, precision
        self._compile(options)

    def _compile(self, options: SearchOptions) -> None:
        options.check_vocabulary(self._families[0].config.target_vocab)
        self.options = options
        on_token = self._on_tokens if self._on_token else None
        self._search = compile_search(self._families, self.mesh, options, self._precision, on_token)
        self.shapes: set[tuple] = set()  # (rows, source, *PaddedSizes): one compilation each

    def with_options(
        self, options: SearchOptions, precompiled_shapes: Sequence[tuple[int, int]] = ()
    ) -> "Translator":
        """Return a translator with other `options` and the same weights.

        `precompiled_shapes` as in the class.
        """
        translator = copy.copy(self)
        translator.precompiled_shapes = tuple(precompiled_shapes)
        translator._compile(options)
        return translator

    def precompile(self, rows: int, source: int) -> None:
        """Compile the search for this shape by running an empty batch."""
        sizes = padded_sizes([])
        list(self._run([], rows, source, sizes, []))
        self.shapes.add((rows, source, *sizes))

    def with_params(self, params) -> "Translator":
        """Return a translator for other parameters of the same shapes; nothing is recompiled."""
        return self._with_weights(self._packs[0](params))

    def without_weights(self) -> "Translator":
        """Return a translator without the first model's weights, with all compiled functions."""
        return self._with_weights(None)

    def _with_weights(self, weights) -> "Translator":
        translator = copy.copy(self)
        translator.weights = (weights, *self.weights[1:])
        return translator

    def translate(
        self, sentences: Sequence[str], progress: Callable[[float], None] | None = None
    ) -> list[str]:
        """The best translation of each sentence; an empty one stays empty."""
        return [hypotheses[0].text for hypotheses in self.hypotheses(sentences, progress)]

    def hypotheses(
        self,
        sentences: Sequence[str],
        progress: Callable[[float], None] | None = None,
        prefixes: Sequence[str] | None = None,
        required: Sequence[Sequence[str]] | None = None,
        counts: Sequence[int] | None = None,
    ) -> list[list[Hypothesis]]:
        """The `n_best` hypotheses of each sentence, best first: at least one, sometimes fewer.

        `counts` overrides `n_best` per sentence.

        `progress` is called after each batch with the number of finished sentences; each segment of
        a split sentence counts as an equal fraction. A sentence's outputs begin with its entry in
        `prefixes` and contain all its `required` words and phrases. Raises InputError for a
        sentence over `long_input` tokens if the policy is an error, and for a prefix or a phrase
        that exceeds the sentence's length limit or that the vocabulary cannot spell.
        """
        prefixes = prefixes or [""] * len(sentences)
        required = required or [()] * len(sentences)
        counts = counts or [self.options.n_best] * len(sentences)
        if not len(sentences) == len(prefixes) == len(required) == len(counts):
            raise InputError("each sentence needs a prefix, a list of required phrases and a count")
        segments = self._segment(sentences, prefixes, required)
        sizes = padded_sizes(segments)
        results: dict[int, list[Hypothesis]] = {}
        num_segments = Counter(segment.sentence for segment in segments)
        if progress:
            progress(len(sentences) - len(num_segments))
        for rows, (count, length) in batches(
            [len(segment.ids) for segment in segments],
            self.tokens_per_batch,
            self.mesh.size,
            self.max_output,
            self.precompiled_shapes,
        ):
            self.shapes.add((count, length, *sizes))
            batch = [segments[row] for row in rows]
            ranked = self._run(batch, count, length, sizes, counts)
            results.update(zip(rows, ranked, strict=True))
            if self._on_token:
                for row, segment in zip(rows, batch, strict=True):
                    self._on_token(segment.sentence, segment.index, results[row][0].text, True)
            if progress:
                progress(sum(1 / num_segments[segment.sentence] for segment in batch))
        parts: list[list[tuple[str, list[Hypothesis]]]] = [[] for _ in sentences]
        for row, segment in enumerate(segments):
            parts[segment.sentence].append((segment.separator, results[row]))
        return [concatenate(segments) for segments in parts]

    def check(self, sentences: Sequence[str]) -> None:
        """Raise the InputError that `hypotheses` would raise, without a search or weights."""
        self._segment(sentences, [""] * len(sentences), [()] * len(sentences))

    def _segment(
        self,
        sentences: Sequence[str],
        prefixes: Sequence[str],
        required: Sequence[Sequence[str]],
    ) -> list[Segment]:
        return list(
            segment_inputs(
                sentences,
                prefixes,
                required,
                vocabulary=self.vocabulary,
                policy=self.policy,
                options=self.options,
                longest=self.max_output,
            )
        )

    def _run(
        self,
        segments: list[Segment],
        rows: int,
        length: int,
        padded_sizes: PaddedSizes,
        counts: Sequence[int],
    ) -> Iterator[list[Hypothesis]]:
        vocab = self._families[0].config.target_vocab
        request = make_search_batch(segments, rows, length, padded_sizes, vocab, self._shortlist)
        longest = self.options.limit(length, self.max_output)
        request = put_on_mesh(request, NamedSharding(self.mesh, ROWS))
        outputs = jax.device_get(self._search(self.weights, request, max_length=longest))
        if self._on_token:
            jax.effects_barrier()  # deliver all partial texts before the final ones
        for row, segment in enumerate(segments):
            row_outputs = jax.tree.map(lambda leaf, row=row: leaf[row], outputs)
            decode, count = self.vocabulary.target.decode, counts[segment.sentence]
            yield rank(row_outputs, segment, decode, self.options, count, self.language)

    def _on_tokens(
        self, sentence_ids: np.ndarray, tokens: np.ndarray, length: int, active: np.ndarray
    ) -> None:
        assert self._on_token is not None
        rows = zip(sentence_ids[active].tolist(), tokens[active, :length].tolist(), strict=True)
        for (sentence, segment), row in rows:
            if sentence >= 0:
                self._on_token(sentence, segment, self.vocabulary.target.decode([row])[0], False)
