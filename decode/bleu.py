"""Corpus scores with their signatures, by sacreBLEU (Post 2018)."""

import re
from collections.abc import Sequence

from sacrebleu.metrics import BLEU, CHRF

# Languages without spaces between words, by their codes of two letters and of three.
_TOKENIZERS = {
    **dict.fromkeys(("zh", "zho", "cmn", "yue"), "zh"),
    **dict.fromkeys(("ja", "jpn", "jap", "ko", "kor"), "char"),
}


def tokenizer(language: str) -> str:
    """The name of the tokenizer by which BLEU counts words of the language of that code."""
    return _TOKENIZERS.get(re.split("[_-]", language)[0].lower(), "13a")


def score(hypotheses: Sequence[str], references: Sequence[str], language: str = "") -> dict:
    """BLEU and chrF, 0 to 100, of detokenised text: {bleu, chrf, signature, chrf_signature}.

    `language` is the target's code. Raises ValueError where the counts differ.
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses, but {len(references)} references")
    bleu, chrf = BLEU(tokenize=tokenizer(language)), CHRF()
    return {
        "bleu": bleu.corpus_score(hypotheses, [references]).score,
        "chrf": chrf.corpus_score(hypotheses, [references]).score,
        "signature": str(bleu.get_signature()),
        "chrf_signature": str(chrf.get_signature()),
    }
