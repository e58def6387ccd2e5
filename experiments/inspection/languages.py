"""Language identification of lines with py3langid."""

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache, partial
from itertools import islice
from multiprocessing import get_context

from data.language import find_language
from experiments.preemption import sigint_check
from experiments.signals import sigint_blocked

LETTERS = 20  # minimum letters of a line for identification
_MIN_PROBABILITY, _MISMATCH_PROBABILITY = 0.5, 0.05
_CHUNK = 2000  # lines
_MAX_SERIAL = 10 * _CHUNK  # lines; up to this, no worker processes are started


def label_of(code: str) -> str:
    """The model's label for a code ("pt" for "pt_BR" or "por_Latn"), or "" if it has none."""
    language = find_language(code)
    return language.code if language and language.code in _identifier().labels else ""


def identify(lines: Iterable[str], expected: str, count: int) -> Iterator[tuple[str, bool]]:
    """Identify the language of each line; yields (language, whether it is not `expected`).

    The language is "" if its probability is below 0.5; it is not `expected` if the probability of
    `expected` is below 0.05. `count` is the number of lines; many lines are split over one process
    per core.
    """
    lines = iter(lines)
    chunks = iter(lambda: list(islice(lines, _CHUNK)), [])
    identify_chunk = partial(_identify, expected=expected)
    affinity = getattr(os, "sched_getaffinity", None)
    workers = len(affinity(0)) if affinity else os.cpu_count() or 1
    if count <= _MAX_SERIAL or workers == 1:
        for chunk in chunks:
            yield from identify_chunk(chunk)
        return
    # On Ctrl-C the pool shuts down in order, which its semaphores need.
    with sigint_check() as check, ProcessPoolExecutor(workers, get_context("spawn")) as pool:

        def submit(count: int) -> Iterator[Future]:
            for chunk in islice(chunks, count):
                with sigint_blocked():
                    yield pool.submit(identify_chunk, chunk)

        futures = deque(submit(2 * workers))
        while futures:
            check()
            yield from futures.popleft().result()
            futures.extend(submit(1))


def most_frequent(lines: Iterable[str]) -> str:
    """The most frequent language of the lines, or "" if none is identified."""
    counts = Counter(language for language, _ in _identify(list(lines), ""))
    del counts[""]
    return max(counts, key=counts.__getitem__, default="")


def _identify(lines: list[str], expected: str) -> list[tuple[str, bool]]:
    identifier, results = _identifier(), []
    for line in lines:
        language, probability = identifier.classify(line)
        mismatch = False
        if probability < _MIN_PROBABILITY or language == "zxx":  # zxx: no linguistic content
            language = ""
        elif expected and language != expected:
            mismatch = dict(identifier.rank(line)).get(expected, 0.0) < _MISMATCH_PROBABILITY
        results.append((language, mismatch))
    return results


@cache
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
