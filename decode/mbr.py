"""Minimum Bayes risk decoding (Kumar and Byrne 2004; Eikema and Aziz 2020).

Samples represent the model's distribution; an output's expected utility is its mean similarity to
the other samples.
"""

from collections.abc import Callable, Sequence

import numpy as np
from sacrebleu.metrics import BLEU, CHRF

from decode.bleu import sacrebleu_tokenizer

_Measure = Callable[[str, str], float]  # (hypothesis, reference) -> 0 to 100
UTILITIES: dict[str, Callable[[str], _Measure]] = {  # by name, given a language code
    "chrf": lambda _: _sentence_score(CHRF()),
    "bleu": lambda code: _sentence_score(
        BLEU(effective_order=True, tokenize=sacrebleu_tokenizer(code))
    ),
}


def expected_utilities(
    texts: Sequence[str], utility: str = "chrf", language: str = ""
) -> np.ndarray:
    """Mean utility of each text against the others as references: [n] texts -> [n], 0 to 100.

    `language` is the texts' code, which selects BLEU's tokenizer.
    """
    measure, cache = UTILITIES[utility](language), {}

    def similarity(i: int, j: int) -> float:
        pair = texts[i], texts[j]
        if pair not in cache:
            cache[pair] = measure(*pair)
        return cache[pair]

    count = len(texts)
    if count == 1:
        return np.zeros(1)
    return np.array(
        [np.mean([similarity(i, j) for j in range(count) if j != i]) for i in range(count)]
    )


def _sentence_score(metric) -> _Measure:
    return lambda hypothesis, reference: metric.sentence_score(hypothesis, [reference]).score
