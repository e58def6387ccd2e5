"""BLEU of one output as different papers count it, each with a signature that says how.

A difference of a point between two papers is often one of tokenisation. The paper's own score is
of tokenised text, its compounds split at hyphens; sacreBLEU tokenises detokenised text by itself.
"""

import re
from collections.abc import Sequence
from importlib.metadata import version

from sacrebleu.metrics import BLEU

from decode.options import InputError

PROTOCOLS = ("13a", "intl", "atat")
_HYPHEN = re.compile(r"(\S)-(\S)")


def bleu_by_protocol(
    hypotheses: Sequence[str], references: Sequence[str], language: str = "de"
) -> dict[str, dict]:
    """BLEU of detokenised text by every protocol: {name: {"bleu": 0 to 100, "signature"}}.

    - 13a: sacreBLEU's default, mteval-v13a's tokens, what WMT reports.
    - intl: sacreBLEU's international tokens, which split at all punctuation and symbols.
    - atat: `split_compounds`, counted as multi-bleu.perl does, without smoothing: the paper's.

    `language` is the target's code, which Moses' tokeniser goes by. Raises ValueError where the
    counts differ, InputError where that tokeniser is not installed.
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses, but {len(references)} references")
    found = {}
    for name in PROTOCOLS[:2]:
        found[name] = _counted(BLEU(tokenize=name), hypotheses, references)
    split = (split_compounds(side, language) for side in (hypotheses, references))
    atat = _counted(BLEU(tokenize="none", smooth_method="none", force=True), *split)
    by = f"tok:moses-{language}-atat|moses:sacremoses-{version('sacremoses')}"
    atat["signature"] = atat["signature"].replace("tok:none", by)
    return found | {"atat": atat}


def split_compounds(sentences: Sequence[str], language: str = "de") -> list[str]:
    """Moses' tokens of each sentence with spaces between, "rich-text" as "rich ##AT##-##AT## text".

    As tensor2tensor's get_ende_bleu.sh has it: Unicode punctuation made ASCII first, and of
    hyphens without a letter between them ("a-b-c") the first only. Raises InputError.
    """
    try:
        from sacremoses import MosesPunctNormalizer, MosesTokenizer
    except ImportError:
        raise InputError(
            "Moses' tokeniser is missing: pip install 'sacremoses>=0.1.1,<0.3'"
        ) from None
    plain, tokens = MosesPunctNormalizer(language), MosesTokenizer(language)
    return [
        _HYPHEN.sub(
            r"\1 ##AT##-##AT## \2",
            tokens.tokenize(plain.replace_unicode_punct(sentence), return_str=True),
        )
        for sentence in sentences
    ]


def _counted(bleu: BLEU, hypotheses: Sequence[str], references: Sequence[str]) -> dict:
    score = bleu.corpus_score(list(hypotheses), [list(references)]).score
    return {"bleu": score, "signature": str(bleu.get_signature())}
