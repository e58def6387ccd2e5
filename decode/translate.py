"""Sentences in, sentences out: as many, in the same order."""

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh

from data.batch import EOS, pad_rows
from data.tokenizer import Vocabulary
from decode.search import METHODS, search
from model import Transformer
from model.sharding import batch_sharding, make_mesh, use_mesh
from model.transformer import unroll_layers


class InputError(ValueError):
    """Input that cannot be translated; the message is one line that says where and what to do."""


@dataclass(frozen=True)
class Hypothesis:
    """One translation: its text, its score (see `beam_search`) and its token ids with EOS."""

    text: str
    score: float
    tokens: tuple[int, ...]


class Translator:
    """A model, its parameters and its vocabulary as a function from sentences to sentences.

    Sentences of like length are searched together in batches of few fixed shapes: source lengths
    are powers of two, rows fill `tokens_per_batch` source positions. What a sentence becomes does
    not depend on its batch. `max_input` is what happens to an input of more tokens than that:
    "split:256" translates it in pieces, cut at sentence ends or else between words, and
    "refuse:256" raises InputError with the line's number.
    """

    def __init__(
        self,
        model: Transformer,
        params,
        vocabulary: Vocabulary,
        mesh: Mesh | None = None,
        *,
        method: str = "beam",
        beam_size: int = 4,
        alpha: float = 0.6,
        extra_length: int = 50,
        tokens_per_batch: int = 2048,
        max_input: str = "split:256",
    ):
        policy, _, size = max_input.partition(":")
        if policy not in ("split", "refuse") or not (size or "256").isdigit() or size == "0":
            raise InputError(f"--max_input={max_input} is not split:TOKENS or refuse:TOKENS")
        if method not in METHODS:
            raise InputError(f"--method={method} is not one of: {', '.join(METHODS)}")
        if not 1 <= beam_size <= model.config.target_vocab:
            raise InputError(
                f"--beam_size={beam_size} must be from 1 to the vocabulary's size, "
                f"{model.config.target_vocab}"
            )
        self.split, self.max_input = policy == "split", int(size or "256")
        table = model.config.max_length if model.config.positions == "learned" else None
        if table is not None:  # there is no position beyond the learned table
            self.max_input = min(self.max_input, table - 1)
        self.max_output = table
        self.vocabulary, self.extra_length = vocabulary, extra_length
        self.tokens_per_batch = tokens_per_batch
        self.mesh = mesh or make_mesh(devices=jax.devices()[:1])
        self._config = model.config
        config, self.params = unroll_layers(model.config, params)
        options = dict(method=method, beam_size=beam_size, alpha=alpha)
        self._search = jax.jit(
            partial(search, Transformer(config), **options), static_argnames="max_length"
        )
        self.shapes: set[tuple[int, int]] = set()  # (rows, source length): one compilation each

    def with_params(self, params) -> "Translator":
        """The same translator for other parameters of the same shapes; compiles nothing anew."""
        other = copy.copy(self)
        other.params = unroll_layers(self._config, params)[1]
        return other

    def translate(
        self, sentences: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> list[str]:
        """The best translation of each sentence; an empty one stays empty."""
        return [best.text for best in self.hypotheses(sentences, progress)]

    def hypotheses(
        self, sentences: Sequence[str], progress: Callable[[int], None] | None = None
    ) -> list[Hypothesis]:
        """The best hypothesis of each sentence; `progress` hears of each batch's piece count.

        Raises InputError for a sentence over `max_input` tokens where these are refused.
        """
        pieces, owners = [], []
        for number, sentence in enumerate(sentences):
            parts = self._pieces(sentence, number + 1)
            pieces += parts
            owners += [number] * len(parts)
        ids = self.vocabulary.source.encode(pieces)
        found: list[list[Hypothesis]] = [[] for _ in sentences]
        results: dict[int, Hypothesis] = {}
        for rows, shape in self._batches([len(row) for row in ids]):
            self.shapes.add(shape)
            results.update(zip(rows, self._run([ids[row] for row in rows], shape), strict=True))
            if progress:
                progress(len(rows))
        for piece, owner in enumerate(owners):
            found[owner].append(results[piece])
        return [_joined(parts) for parts in found]

    def _pieces(self, sentence: str, line: int) -> list[str]:
        if not sentence.strip():
            return []

        def tokens(text: str) -> int:
            return len(self.vocabulary.source.encode([text])[0])

        # A character takes at most four (byte) tokens, and the first word's mark one more.
        if 4 * len(sentence) + 1 <= self.max_input or tokens(sentence) <= self.max_input:
            return [sentence]
        if not self.split:
            raise InputError(
                f"line {line} has {tokens(sentence)} tokens, more than --max_input=refuse:"
                f"{self.max_input} allows: shorten it, or use --max_input=split:{self.max_input}"
            )
        return list(split_text(sentence, lambda text: tokens(text) <= self.max_input))

    def _batches(self, lengths: list[int]) -> Iterator[tuple[list[int], tuple[int, int]]]:
        """Row numbers of one batch, longest first, and its (rows, source length)."""
        devices = self.mesh.shape["data"] * self.mesh.shape["fsdp"]
        order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
        while order:
            source = max(16, 1 << lengths[order[0]].bit_length())  # holds EOS as well
            rows = max(1, self.tokens_per_batch // source)
            if len(order) == 1:
                rows = 1  # a lone sentence, as typed at a terminal
            rows = -(-rows // devices) * devices
            yield order[:rows], (rows, source)
            order = order[rows:]

    def _run(self, ids: list[list[int]], shape: tuple[int, int]) -> Iterator[Hypothesis]:
        rows, length = shape
        room = min(length + self.extra_length, self.max_output or length + self.extra_length)
        limits = np.ones(rows, np.int32)  # rows that only fill the batch end at once
        limits[: len(ids)] = [min(len(row) + self.extra_length, room) for row in ids]
        src = pad_rows([[*row, EOS] for row in ids], rows, length)
        with use_mesh(self.mesh):
            src, limits = jax.device_put((src, limits), batch_sharding(self.mesh))
            found = self._search(self.params, src, limits, max_length=room)
        tokens, scores, lengths = (np.asarray(leaf)[: len(ids), 0] for leaf in found)
        outputs = [row[:n].tolist() for row, n in zip(tokens, lengths, strict=True)]
        texts = self.vocabulary.target.decode(outputs)
        for text, score, output in zip(texts, scores, outputs, strict=True):
            yield Hypothesis(text, float(score), tuple(output))


def _joined(parts: list[Hypothesis]) -> Hypothesis:
    text = " ".join(part.text for part in parts)
    tokens = tuple(token for part in parts for token in part.tokens)
    return Hypothesis(text, sum(part.score for part in parts), tokens)


def split_text(text: str, fits: Callable[[str], bool]) -> Iterator[str]:
    """Pieces of `text` that fit, in order, nothing lost but white space at the cuts.

    A text that does not fit is cut in two near its middle: after a sentence's end if there is
    one, else between words, else anywhere. Raises InputError where one character does not fit.
    """
    if fits(text):
        yield text
        return
    if len(text) < 2:
        raise InputError(f"--max_input is too small for the single character {text!r}")
    middle = len(text) // 2
    for pattern in (r"(?<=[.!?;:…。！？])\s+(?=\S)", r"(?<=\S)\s+(?=\S)"):
        cuts = [match.span() for match in re.finditer(pattern, text)]
        if cuts:
            start, end = min(cuts, key=lambda cut: abs(cut[0] - middle))
            break
    else:
        start = end = middle
    yield from split_text(text[:start], fits)
    yield from split_text(text[end:], fits)
