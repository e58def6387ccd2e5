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

LETTERS = 20  # fewer say too little
_SURE, _UNLIKELY = 0.5, 0.05
_CHUNK = 2000  # lines
_FEW = 10 * _CHUNK  # lines, for which no processes are worth starting


def known(code: str) -> str:
    """The model's name for a code ("pt" for "pt_BR" or "por_Latn"), or "" where it has none."""
    found = find_language(code)
    return found.code if found and found.code in _identifier().labels else ""


def read_as(lines: Iterable[str], expected: str, count: int) -> Iterator[tuple[str, bool]]:
    """What each line reads as, and whether that is surely not `expected`; "" where it is unclear.

    Unclear is below one half of probability, and sure is where `expected` has below a twentieth.
    There are `count` lines; of many, parts are looked at by as many processes as there are cores.
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
    # A Ctrl-C ends the processes of the pool in order, which their semaphores need.
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
    """The language that most of the lines read as, or "" where none does."""
    counts = Counter(language for language, _ in _judge(list(lines), ""))
    del counts[""]
    return max(counts, key=counts.__getitem__, default="")


def _judge(lines: list[str], expected: str) -> list[tuple[str, bool]]:
    identifier, found = _identifier(), []
    for line in lines:
        language, sure = identifier.classify(line)
        wrong = False
        if sure < _SURE or language == "zxx":  # the model's name for what is no language
            language = ""
        elif expected and language != expected:
            wrong = dict(identifier.rank(line)).get(expected, 0.0) < _UNLIKELY
        found.append((language, wrong))
    return found


@cache
def _identifier():
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
