"""BLEU by the protocols of different papers, each with its signature.

A difference of a point between two papers is often due to tokenization. The paper scores tokenized
text with compounds split at hyphens; sacreBLEU tokenizes detokenized text itself.
"""

import re
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec

from sacrebleu.metrics import BLEU

from data.language import Language, find_language, nearest_codes
from decode.bleu import sacrebleu_tokenizer
from decode.options import InputError

PROTOCOLS = ("13a", "intl", "atat")  # for languages with spaces between words
# sacreBLEU's tokenizers for languages that need its extra packages.
_MECAB = {"ja": ("ja-mecab", "MeCab"), "ko": ("ko-mecab", "mecab_ko")}
_HYPHEN = re.compile(r"(\S)-(\S)")


def protocols_of(language: str) -> tuple[str, ...]:
    """Names of the protocols for a language: usually 13a, intl and atat.

    These count words between spaces, which does not suit Chinese (zh, char), Japanese (ja-mecab,
    char), Korean (ko-mecab, char), Thai, Lao, Khmer, Burmese or Tibetan (char). Raises InputError
    for an unknown code.
    """
    code, name = _checked_language(language).code, sacrebleu_tokenizer(language)
    if name == "13a":
        return PROTOCOLS
    default = _MECAB[code][0] if code in _MECAB else name
    return tuple(dict.fromkeys((default, "char")))


def missing_protocols(language: str) -> dict[str, str]:
    """Protocols of a language whose packages are missing, and how to install each."""
    missing = {}
    for code, (name, module) in _MECAB.items():
        if name in protocols_of(language) and not find_spec(module):
            missing[name] = f"pip install 'sacrebleu[{code}]'"
    return missing


def bleu_by_protocol(
    hypotheses: Sequence[str], references: Sequence[str], language: str = "de"
) -> dict[str, dict]:
    """BLEU of detokenized text by every protocol: {name: {"bleu": 0 to 100, "signature"}}.

    - 13a: sacreBLEU's default, mteval-v13a's tokens, as WMT reports it.
    - intl: sacreBLEU's international tokens, which split at all punctuation and symbols.
    - atat: `split_compounds`, counted as in multi-bleu.perl, without smoothing: the paper's.
    - zh, char, ja-mecab, ko-mecab: sacreBLEU's tokens for other languages (`protocols_of`),
      except `missing_protocols`.

    `language` is the target's code, also for Moses' tokenizer. Raises ValueError if the counts
    differ, InputError if the code is unknown or Moses' tokenizer is not installed.
    """
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses, but {len(references)} references")
    scores, missing = {}, missing_protocols(language)
    for name in protocols_of(language):
        if name == "atat":
            scores[name] = _atat_bleu(hypotheses, references, _checked_language(language).code)
        elif name not in missing:
            scores[name] = _bleu(BLEU(tokenize=name), hypotheses, references)
    return scores


def _checked_language(code: str) -> Language:
    if language := find_language(code):
        return language
    similar = nearest_codes(code)
    hint = f" (similar: {', '.join(similar)})" if similar else ""
    raise InputError(
        f"--language={code} is not a language code{hint}: give an ISO 639 code such as de, deu, "
        "pt-BR or zho_Hans"
    )


def _atat_bleu(hypotheses: Sequence[str], references: Sequence[str], code: str) -> dict:
    texts = (split_compounds(text, code) for text in (hypotheses, references))
    atat = _bleu(BLEU(tokenize="none", smooth_method="none", force=True), *texts)
    tokenization = f"tok:moses-{code}-atat|moses:sacremoses-{version('sacremoses')}"
    return atat | {"signature": atat["signature"].replace("tok:none", tokenization)}


def split_compounds(sentences: Sequence[str], language: str = "de") -> list[str]:
    """Split into Moses' tokens, joined by spaces, "rich-text" as "rich ##AT##-##AT## text".

    As in tensor2tensor's get_ende_bleu.sh: Unicode punctuation is first converted to ASCII, and of
    two hyphens with one letter between them ("a-b-c") only the first is split. Raises InputError.
    """
    try:
        from sacremoses import MosesPunctNormalizer, MosesTokenizer
    except ImportError:
        raise InputError(
            "Moses' tokenizer is missing: pip install 'sacremoses>=0.1.1,<0.3'"
        ) from None
    normalizer, moses = MosesPunctNormalizer(language), MosesTokenizer(language)
    return [
        _HYPHEN.sub(
            r"\1 ##AT##-##AT## \2",
            moses.tokenize(normalizer.replace_unicode_punct(sentence), return_str=True),
        )
        for sentence in sentences
    ]


def _bleu(bleu: BLEU, hypotheses: Sequence[str], references: Sequence[str]) -> dict:
    score = bleu.corpus_score(list(hypotheses), [list(references)]).score
    return {"bleu": score, "signature": str(bleu.get_signature())}
