"""Inputs of a search: sentences as segments, with their prefixes and required phrases."""

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from data.tokenizer import Tokenizer
from data.vocabulary import Vocabulary
from decode.batching import split_text
from decode.options import InputError, SearchOptions
from decode.phrase_encoding import contains, encode, encode_phrase, ngrams
from decode.prefix_completion import Completion, split_open_word

_LETTERS = 16  # per token: a prefix of this length is enough to detect a much too long text


@dataclass(frozen=True)
class Segment:
    """A sentence, or a segment of a long one; all lists are of ids without EOS."""

    sentence: int  # index of the sentence
    index: int  # of the segment in the sentence
    separator: str  # the text between it and the previous segment
    ids: list[int]
    prefix: list[int]  # the output begins with it, followed by the completion
    phrases: list[list[int]]  # the output contains them
    limit: int  # maximum output length, EOS included
    seed: int
    completion: Completion | None = None

    @property
    def num_unmet(self) -> int:
        """Number of tokens of required phrases that the prefix does not contain."""
        return sum(len(ids) for ids in self.phrases if not contains(self.prefix, ids))


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
        self.at_maximum = self.size == max_size

    def segments(self, line: int, text: str, ids: list[int], tokenizer: Tokenizer):
        """Segments of a text as pairs (separator, segment); raises InputError by the policy."""
        if len(ids) <= self.size:
            return [("", text)]
        if not self.split:
            limit = f"--long_input=error:{self.size} allows"
            if self.at_maximum:
                limit = f"the model's {self.size} positions without EOS"
            raise InputError(
                f"line {line} has {len(ids)} tokens, more than {limit}: shorten it, or use "
                f"--long_input=split:{self.size}"
            )

        def fits(text_segment: str) -> bool:
            # Without this check, each level of cuts would encode the complete text.
            head = text_segment[: _LETTERS * self.size]
            if len(head) < len(text_segment) and len(encode(head, tokenizer)) > 2 * self.size:
                return False
            return len(encode(text_segment, tokenizer)) <= self.size

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

    Outputs have at most `longest` tokens. A sentence's output begins with its prefix and contains
    its required phrases. Raises InputError, naming the line, for an input that is too long, and for
    a prefix or phrase that does not fit, cannot be spelled or is not supported by the search.
    """
    encoded = vocabulary.source.encode(sentences)
    for sentence_index, (sentence, ids) in enumerate(zip(sentences, encoded, strict=True)):
        line = sentence_index + 1
        prefix, completion = _prefix(line, prefixes[sentence_index], vocabulary.target, options)
        phrases = _phrases(line, required[sentence_index], vocabulary.target, options)
        if not sentence.strip():
            continue
        texts = policy.segments(line, sentence, ids, vocabulary.source)
        if phrases and len(texts) > 1:
            advice = f"raise --long_input=split:{policy.size}"
            if policy.at_maximum:
                advice = f"shorten it (the model has {policy.size} positions without EOS)"
            raise InputError(
                f"line {line} would be translated in {len(texts)} segments, so the segment of its "
                f"required phrases is ambiguous: {advice}, or split it manually"
            )
        for index, (separator, text) in enumerate(texts):
            ids = ids if text is sentence else encode(text, vocabulary.source)
            limit = options.limit(len(ids), longest)
            if options.min_length > limit:
                raise InputError(
                    f"line {line}: --min_length={options.min_length} is more than its limit, "
                    f"{limit}: lower it, or raise --max_length_offset, --max_length or --max_ratio"
                )
            # Samples depend on the text, not on its position: equal lines get equal samples.
            seed = zlib.crc32(text.strip().encode())
            segment = Segment(
                sentence_index, index, separator, ids, prefix, phrases, limit, seed, completion
            )
            num_required = (len(prefix) or bool(options.forced_bos_id)) + segment.num_unmet
            if completion:
                num_tokens = completion.min_tokens()[0]
                assert num_tokens is not None  # the prefix's ids are one completion
                num_required += num_tokens
            if num_required >= limit:
                subject = "its required phrases (and prefix) have" if phrases else "its prefix has"
                raise InputError(
                    f"line {line}: {subject} {num_required} tokens, but the length limit is "
                    f"{limit} with EOS: shorten it, or raise the limit"
                )
            yield segment
            prefix, completion = [], None  # only the first segment begins with it


def _phrases(
    line: int, texts: Sequence[str], tokenizer: Tokenizer, options: SearchOptions
) -> list[list[int]]:
    if texts and (options.method != "beam" or options.num_groups > 1):
        raise InputError(
            "required phrases (--require, --require_file) need --method=beam with --num_groups=1: "
            "no other search supports them"
        )
    phrases = {}  # keyed by ids: several texts may have the same spelling
    for text in texts:
        ids = encode_phrase(f"line {line}: the required phrase", text, tokenizer)
        _check_allowed(f"line {line}: {text!r} is required", ids, tokenizer, options)
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
    context = f"line {line}: {text.strip()!r} is the prefix"
    _check_allowed(context, [*tokenizer.prefix, *ids], tokenizer, options)
    ids, completion = split_open_word(text, ids, tokenizer)
    ids = [*tokenizer.prefix, *ids]
    if options.forced_bos_id and not ids:
        ids = [options.forced_bos_id]
    return ids, completion


def _check_allowed(
    context: str, ids: list[int], tokenizer: Tokenizer, options: SearchOptions
) -> None:
    """Raise InputError if the options forbid the requested `ids`."""
    for banned in options.banned:
        if contains(ids, banned):
            (word,) = tokenizer.decode([banned])
            raise InputError(f"{context}, but --forbid={word} forbids it")
    size = options.no_repeat_ngrams
    if size and len(set(ngrams(ids, size))) < len(ngrams(ids, size)):
        raise InputError(f"{context}, but --no_repeat_ngrams={size} forbids its repetitions")
