"""Corpus scores with their signatures, by sacreBLEU (Post 2018)."""

from collections.abc import Sequence

from sacrebleu.metrics import BLEU, CHRF

_TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char"}  # languages without spaces between words


def tokenizer(language: str) -> str:
    """The name of the tokenizer by which BLEU counts words of the language of that code."""
    return _TOKENIZERS.get(language, "13a")


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
