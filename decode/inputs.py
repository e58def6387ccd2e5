"""Inputs of a search: sentences or segments and their constraints, as arrays."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple

import numpy as np

from data.batch import EOS, UNK, Numbers, pad_rows
from data.tokenizer import Tokenizer
from data.vocabulary import Vocabulary
from decode.batching import split_text
from decode.options import InputError, SearchOptions
from decode.prefix_completion import Completion, open_end
from decode.prefix_constraint import Completions, Sizes, pack, sizes
from decode.shortlist import Shortlist

_LETTERS = 16  # per token, generous: a prefix of this length shows that a text is far too long


@dataclass(frozen=True)
class Segment:
    """A sentence, or a part of a long one; all lists are of ids without EOS."""

    sentence: int  # the sentence's number
    part: int  # the segment's index in the sentence
    separator: str  # the text between it and the previous segment
    ids: list[int]
    prefix: list[int]  # the output begins with it, followed by the completion
    phrases: list[list[int]]  # the output contains them
    limit: int  # the longest output, EOS included
    seed: int
    completion: Completion | None = None

    @property
    def owed(self) -> int:
        """Number of tokens of required phrases that the prefix does not contain."""
        return sum(len(ids) for ids in self.phrases if not _contains(self.prefix, ids))


class SearchBatch(NamedTuple, Generic[Numbers]):
    """Segments as the arrays of a search of B rows; rows after the last segment end at once."""

    src: Numbers  # [B,S] int32, with EOS
    limits: Numbers  # [B] int32
    prefix: Numbers  # [B,P] int32
    phrases: Numbers  # [B,N,Q] int32
    seeds: Numbers  # [B] uint32
    sentence_ids: Numbers  # [B,2] int32: sentence and part; -1 in padding rows
    allowed: Numbers | None = None  # [B,V/32] uint32, bits of a shortlist; None: all words
    completions: Completions[Numbers] | None = None  # of prefixes that end inside a word, if any


class PaddedSizes(NamedTuple):
    """Padded sizes for all segments of a call, powers of two: few shapes, few compilations."""

    prefix: int
    phrases: int
    phrase: int
    completion: Sizes = Sizes()  # no prefix ends inside a word


def padded_sizes(segments: Sequence[Segment]) -> PaddedSizes:
    """The sizes that hold the longest prefix, the most phrases and the longest phrase."""

    def padded(sizes) -> int:
        size = max(sizes, default=0)
        return 1 << (size - 1).bit_length() if size else 0

    return PaddedSizes(
        padded(len(segment.prefix) for segment in segments),
        padded(len(segment.phrases) for segment in segments),
        padded(len(phrase) for segment in segments for phrase in segment.phrases),
        sizes([segment.completion for segment in segments]),
    )


def make_search_batch(
    segments: Sequence[Segment],
    rows: int,
    length: int,
    padded_sizes: PaddedSizes,
    vocab: int,
    shortlist: Shortlist | None = None,
) -> SearchBatch[np.ndarray]:
    """Pad up to `rows` segments of less than `length` ids, for outputs of `vocab` ids."""

    def column(values, rest, dtype=np.int32) -> np.ndarray:
        return np.array([*values, *[rest] * (rows - len(segments))], dtype)

    filled = [
        [*segment.phrases, *[[]] * (padded_sizes.phrases - len(segment.phrases))]
        for segment in segments
    ]
    phrases = pad_rows(
        [phrase for row in filled for phrase in row],
        rows * padded_sizes.phrases,
        padded_sizes.phrase,
    )
    allowed: np.ndarray | None = None
    masks: list[np.ndarray | None] = [None] * len(segments)
    if shortlist is not None:
        masks = [shortlist.allowed([*p.ids, EOS], _requested(p)) for p in segments]
        allowed = column(masks, shortlist.allowed([]), np.uint32)
    completions = None
    if padded_sizes.completion.states:
        open_words, owed = [p.completion for p in segments], [p.owed for p in segments]
        completions = pack(open_words, owed, masks, rows, vocab, padded_sizes.completion)
    return SearchBatch(
        pad_rows([[*segment.ids, EOS] for segment in segments], rows, length),
        column([segment.limit for segment in segments], 1),
        pad_rows([segment.prefix for segment in segments], rows, padded_sizes.prefix),
        phrases.reshape(rows, padded_sizes.phrases, padded_sizes.phrase),
        column([segment.seed for segment in segments], 0, np.uint32),
        column([(segment.sentence, segment.part) for segment in segments], (-1, -1)),
        allowed,
        completions,
    )


def _requested(segment: Segment) -> list[int]:
    """The ids that the output may contain whatever the source: prefix, spelling, phrases."""
    spelling = segment.completion.spelling if segment.completion else ()
    return [*segment.prefix, *spelling, *sum(segment.phrases, [])]


class LongInputPolicy:
    """Policy for inputs of more than `size` tokens: they are `split`, or else an error."""

    def __init__(self, text: str, max_size: int | None = None):
        """Parse "split:TOKENS" or "error:TOKENS"; raises InputError.

        `max_size` is the number of the model's positions without EOS, if these are bounded.
        """
        policy, _, size = text.partition(":")
        if policy not in ("split", "error") or not size.isdecimal() or int(size) == 0:
            raise InputError(f"--long_input={text} is not split:TOKENS or error:TOKENS")
        self.split, self.size = policy == "split", min(int(size), max_size or int(size))
        self.full = self.size == max_size  # a larger size would not help

    def parts(self, line: int, text: str, ids: list[int], tokenizer: Tokenizer):
        """Segments of a text as pairs (gap before it, segment); raises InputError by the policy."""
        if len(ids) <= self.size:
            return [("", text)]
        if not self.split:
            limit = f"--long_input=error:{self.size} allows"
            if self.full:
                limit = f"the {self.size} that the model has positions for beside the end"
            raise InputError(
                f"line {line} has {len(ids)} tokens, more than {limit}: shorten it, or use "
                f"--long_input=split:{self.size}"
            )

        def fits(part: str) -> bool:
            # Without this check, each level of cuts would encode the whole text again.
            head = part[: _LETTERS * self.size]
            if len(head) < len(part) and len(_encode(head, tokenizer)) > 2 * self.size:
                return False
            return len(_encode(part, tokenizer)) <= self.size

        try:
            return list(split_text(text, fits))
        except InputError as error:
            raise InputError(f"line {line}: {error}") from None


def segment_inputs(
    sentences: Sequence[str],
    prefixes: Sequence[str],
    required: Sequence[Sequence[str]],
    *,
    vocabulary: Vocabulary,
    policy: LongInputPolicy,
    options: SearchOptions,
    longest: int | None,
) -> Iterator[Segment]:
    """Segments of all sentences in order, none for an empty one.

    Outputs are no longer than `longest`. A sentence's output begins with its prefix and contains
    its required phrases. Raises InputError, naming the line, for an input that is too long, and for
    a prefix or phrase that does not fit, cannot be spelled or is not supported by the search.
    """
    encoded = vocabulary.source.encode(sentences)
    for number, (sentence, ids) in enumerate(zip(sentences, encoded, strict=True)):
        line = number + 1
        prefix, completion = _prefix(line, prefixes[number], vocabulary.target, options)
        phrases = _phrases(line, required[number], vocabulary.target, options)
        if not sentence.strip():
            continue
        parts = policy.parts(line, sentence, ids, vocabulary.source)
        if phrases and len(parts) > 1:
            advice = f"raise --long_input=split:{policy.size}"
            if policy.full:
                advice = f"shorten it (the model has positions for {policy.size} and the end)"
            raise InputError(
                f"line {line} would be translated in {len(parts)} segments, and which of them "
                f"needs its required phrases is not known: {advice}, or split it by hand"
            )
        for part, (separator, text) in enumerate(parts):
            ids = ids if text is sentence else _encode(text, vocabulary.source)
            limit = options.limit(len(ids), longest)
            if options.min_length > limit:
                raise InputError(
                    f"line {line}: --min_length={options.min_length} is more than its limit, "
                    f"{limit}: lower it, or raise --max_length_offset, --max_length or --max_ratio"
                )
            # Samples depend on the text and not on its position: equal lines get equal samples.
            seed = zlib.crc32(text.strip().encode())
            segment = Segment(
                number, part, separator, ids, prefix, phrases, limit, seed, completion
            )
            needed = (len(prefix) or bool(options.forced_bos_id)) + segment.owed
            if completion:
                num_tokens = completion.needs()[0]
                assert num_tokens is not None  # the prefix's ids are one completion
                needed += num_tokens
            if needed >= limit:
                what = "its required phrases (and prefix) have" if phrases else "its prefix has"
                raise InputError(
                    f"line {line}: {what} {needed} tokens, but the length limit is {limit} with "
                    "the end: shorten it, or raise the limit"
                )
            yield segment
            prefix, completion = [], None  # only the first segment begins with it


def _phrases(
    line: int, texts: Sequence[str], tokenizer: Tokenizer, options: SearchOptions
) -> list[list[int]]:
    if texts and (options.method != "beam" or options.num_groups > 1):
        raise InputError(
            "required phrases (--require, --require_file) need --method=beam with --num_groups=1: "
            "no other search finds its way to them"
        )
    phrases = {}  # keyed by ids: several texts may have the same spelling
    for text in texts:
        ids = encode_phrase(f"line {line}: the required phrase", text, tokenizer)
        _allow(f"line {line}: {text!r} is required", ids, tokenizer, options)
        phrases[tuple(ids)] = ids
    return [*phrases.values()]


def _prefix(
    line: int, text: str, tokenizer: Tokenizer, options: SearchOptions
) -> tuple[list[int], Completion | None]:
    """The ids that an output begins with, and the completion of their last word."""
    if not text.strip():
        return [], None
    # Without the space at the end, which belongs to the next token.
    ids = encode_phrase(f"line {line}: the prefix", text, tokenizer)
    what = f"line {line}: {text.strip()!r} is the prefix"
    _allow(what, [*tokenizer.prefix, *ids], tokenizer, options)
    ids, completion = open_end(text, ids, tokenizer)
    ids = [*tokenizer.prefix, *ids]
    if options.forced_bos_id and not ids:
        ids = [options.forced_bos_id]
    return ids, completion


def _allow(what: str, ids: list[int], tokenizer: Tokenizer, options: SearchOptions) -> None:
    """Raise InputError if the options forbid the requested `ids`."""
    for banned in options.banned:
        if _contains(ids, banned):
            (word,) = tokenizer.decode([banned])
            raise InputError(f"{what}, but --forbid={word} forbids it")
    size = options.no_repeat_ngrams
    if size and len(set(_windows(ids, size))) < len(_windows(ids, size)):
        raise InputError(f"{what}, but it repeats what --no_repeat_ngrams={size} forbids to")


def _windows(ids: list[int], size: int) -> list[tuple[int, ...]]:
    return [tuple(ids[start : start + size]) for start in range(len(ids) - size + 1)]


def _contains(ids: list[int], phrase: Sequence[int]) -> bool:
    return tuple(phrase) in _windows(ids, len(phrase))


def encode_phrase(what: str, text: str, tokenizer: Tokenizer) -> list[int]:
    """Encode `text` as after a space, without white space around it.

    Raises InputError, which names the text, if the vocabulary cannot spell it.
    """
    ids = _encode(text.strip(), tokenizer)[len(tokenizer.prefix) :] if text.strip() else []
    if UNK in ids or not ids:
        raise InputError(
            f"{what} {text!r} cannot be spelled by the vocabulary: leave it out, or write it in "
            "characters that the vocabulary was learned from"
        )
    return ids


def phrase_encodings(what: str, text: str, tokenizer: Tokenizer) -> list[list[int]]:
    """Encodings of `text` after a space and, unless it begins with a letter or digit, in a word."""
    encodings = [encode_phrase(what, text, tokenizer)]
    if not text.strip()[0].isalnum():
        stem, joined = (_encode(start, tokenizer) for start in ("a", f"a{text.strip()}"))
        if joined[: len(stem)] == stem and len(joined) > len(stem):
            encodings.append(joined[len(stem) :])
    return encodings


def _encode(text: str, tokenizer: Tokenizer) -> list[int]:
    return tokenizer.encode([text])[0]
