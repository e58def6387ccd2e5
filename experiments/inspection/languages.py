"""Language identification of lines, by py3langid."""

import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache, partial
from itertools import islice
from multiprocessing import get_context

from data.language import find_language
from experiments.preemption import flagged
from experiments.signals import held_back

LETTERS = 20  # minimum letters of a line for identification
_SURE, _UNLIKELY = 0.5, 0.05
_CHUNK = 2000  # lines
_FEW = 10 * _CHUNK  # lines; up to this, no worker processes are started


def known(code: str) -> str:
    """The model's name for a code ("pt" for "pt_BR" or "por_Latn"), or "" if it has none."""
    language = find_language(code)
    return language.code if language and language.code in _identifier().labels else ""


def read_as(lines: Iterable[str], expected: str, count: int) -> Iterator[tuple[str, bool]]:
    """Identify the language of each line: (language or "" if unclear, surely not `expected`).

    Unclear means a probability below 0.5; surely means that `expected` has below 0.05.
    `count` is the number of lines; many lines are split over one process per core.
    """
    lines = iter(lines)
    chunks = iter(lambda: list(islice(lines, _CHUNK)), [])
    judge = partial(_judge, expected=expected)
    affinity = getattr(os, "sched_getaffinity", None)
    workers = len(affinity(0)) if affinity else os.cpu_count() or 1
    if count <= _FEW or workers == 1:
        for chunk in chunks:
            yield from judge(chunk)
        return
    # On Ctrl-C the pool shuts down in order, which its semaphores need.
    with flagged() as check, ProcessPoolExecutor(workers, get_context("spawn")) as pool:

        def submit(count: int) -> Iterator[Future]:
            for chunk in islice(chunks, count):
                with held_back():
                    yield pool.submit(judge, chunk)

        waiting = deque(submit(2 * workers))
        while waiting:
            check()
            yield from waiting.popleft().result()
            waiting.extend(submit(1))


def usual(lines: Iterable[str]) -> str:
    """The most frequent language of the lines, or "" if none is identified."""
    counts = Counter(language for language, _ in _judge(list(lines), ""))
    del counts[""]
    return max(counts, key=counts.__getitem__, default="")


def _judge(lines: list[str], expected: str) -> list[tuple[str, bool]]:
    identifier, results = _identifier(), []
    for line in lines:
        language, sure = identifier.classify(line)
        mismatch = False
        if sure < _SURE or language == "zxx":  # the model's code for "no language"
            language = ""
        elif expected and language != expected:
            mismatch = dict(identifier.rank(line)).get(expected, 0.0) < _UNLIKELY
        results.append((language, mismatch))
    return results


@cache
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
