"""Corpus BLEU and chrF with their signatures, by sacreBLEU (Post 2018)."""

from collections.abc import Sequence

from sacrebleu.metrics import BLEU, CHRF

from data.language import find_language


def sacrebleu_tokenizer(language: str) -> str:
    """Name of sacreBLEU's tokenizer for a language code.

    - zh for Chinese.
    - char for Japanese, Korean, and languages without spaces between words (Thai, Lao, Khmer,
      Burmese, Tibetan). sacreBLEU has MeCab for the first two, which is not always installed.
    - 13a for all others, and for unknown codes.
    """
    entry = find_language(language)
    if entry is None:
        return "13a"
    if entry.chinese:
        return "zh"
    korean = entry.code == "ko" and entry.script != "Latn"
    return "char" if korean or not entry.spaced else "13a"


def corpus_scores(hypotheses: Sequence[str], references: Sequence[str], language: str = "") -> dict:
    """BLEU and chrF, 0 to 100, of detokenized text: {bleu, chrf, signature, chrf_signature}.

    `language` is the target's code. Raises ValueError if the counts differ.
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses, but {len(references)} references")
    bleu, chrf = BLEU(tokenize=sacrebleu_tokenizer(language)), CHRF()
    return {
        "bleu": bleu.corpus_score(hypotheses, [references]).score,
        "chrf": chrf.corpus_score(hypotheses, [references]).score,
        "signature": str(bleu.get_signature()),
        "chrf_signature": str(chrf.get_signature()),
    }
