"""BLEU protocols compared with sacreBLEU on text tokenized independently."""

import importlib.util
import sys

import pytest
from sacrebleu import corpus_bleu

from decode import bleu_protocols
from decode.bleu_protocols import (
    PROTOCOLS,
    bleu_by_protocol,
    missing_protocols,
    protocols_of,
    split_compounds,
)
from decode.options import InputError

HYPOTHESES = [
    "Der rot-grüne Hund sah das E-Mail-Format.",
    "Ist die Zug-um-Zug Lösung wirklich gut?",
    "Wir sahen - wie immer - den Fuchs, und er lief zu A.B hin.",
]
REFERENCES = [
    "Der rot-grüne Hund las das E-Mail-Format.",
    "Ist eine Zug-um-Zug Lösung wirklich gut?",
    "Wir sahen - wie immer - den Fuchs; und er lief zu A.B hin!",
]


def tokenize(sentence):
    """Tokenizes these sentences as Moses and compound splitting do, without a regex."""
    words = []
    for word in sentence.split():
        stem = word.rstrip(".?!,;")
        words += [word] if word == "-" else " ##AT##-##AT## ".join(stem.split("-")).split()
        words += word[len(stem) :]
    return " ".join(words)


def test_compounds_are_split_as_in_the_paper():
    assert split_compounds(HYPOTHESES) == [tokenize(sentence) for sentence in HYPOTHESES]
    # Matches do not overlap: of two hyphens around a single letter, only the first is split.
    assert split_compounds(["a-b-c"]) == ["a ##AT##-##AT## b-c"]
    assert split_compounds(["sagt er“"], "de") == ["sagt er &quot;"]


def test_each_protocol_matches_its_signature():
    scores = bleu_by_protocol(HYPOTHESES, REFERENCES)
    for name in "13a", "intl":
        expected = corpus_bleu(HYPOTHESES, [REFERENCES], tokenize=name).score
        assert (
            scores[name]["bleu"] == pytest.approx(expected)
            and f"|tok:{name}|" in scores[name]["signature"]
        )
    hypotheses, references = (
        [tokenize(sentence) for sentence in side] for side in (HYPOTHESES, REFERENCES)
    )
    expected = corpus_bleu(
        hypotheses, [references], tokenize="none", smooth_method="none", force=True
    )
    assert scores["atat"]["bleu"] == pytest.approx(expected.score)
    assert "|tok:moses-de-atat|moses:sacremoses-" in scores["atat"]["signature"]
    assert "|smooth:none|" in scores["atat"]["signature"]
    assert len({round(score["bleu"], 3) for score in scores.values()}) == 3


ZH = ["我今天去了学校。", "他正在看书。"], ["我今天去学校。", "他在看书。"]
TH = ["แมวกินปลา", "ฝนตกหนัก"], ["แมวกินปลาตัวใหญ่", "วันนี้ฝนตกหนัก"]


@pytest.mark.parametrize(
    ("codes", "text", "names"),
    [
        (("zh", "zh_CN", "zho_Hans", "zh-Hant", "cmn"), ZH, ("zh", "char")),
        (("ja", "jpn", "jpn_Jpan"), ZH, ("ja-mecab", "char")),
        (("ko", "ko-KR"), ZH, ("ko-mecab", "char")),
        (("th", "km", "lao", "mya_Mymr"), TH, ("char",)),
    ],
)
def test_languages_without_spaces_are_tokenized_as_in_sacrebleu(codes, text, names, monkeypatch):
    for code in codes:
        assert protocols_of(code) == names
        scores, missing = bleu_by_protocol(*text, code), missing_protocols(code)
        assert [*scores] == [name for name in names if name not in missing]
        for name, score in scores.items():
            assert score["bleu"] == corpus_bleu(text[0], [text[1]], tokenize=name).score > 10
            assert f"|tok:{name}|" in score["signature"]
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(bleu_protocols, "find_spec", lambda name: find_spec("os"))
    assert missing_protocols(codes[0]) == {}
    monkeypatch.setattr(bleu_protocols, "find_spec", lambda name: None)
    code = codes[0]
    expected = {f"{code}-mecab": f"pip install 'sacrebleu[{code}]'"} if code in ("ja", "ko") else {}
    assert missing_protocols(code) == expected


def test_moses_accepts_all_forms_of_a_language_code():
    assert protocols_of("deu_Latn") == PROTOCOLS == protocols_of("pt-BR")
    signature = bleu_by_protocol(HYPOTHESES, REFERENCES, "deu_Latn")["atat"]["signature"]
    assert "|tok:moses-de-atat|" in signature
    assert bleu_by_protocol(HYPOTHESES, REFERENCES, "deu") == bleu_by_protocol(
        HYPOTHESES, REFERENCES
    )


@pytest.mark.parametrize(
    ("code", "message"),
    [("xx", "similar: xh"), ("jap", r"similar: .*jpn"), ("german", "german is not"), ("", "= is")],
)
def test_an_unknown_language_is_rejected_with_suggestions(code, message):
    with pytest.raises(InputError, match=message):
        bleu_by_protocol(HYPOTHESES, REFERENCES, code)


def test_atat_bleu_is_zero_without_a_matching_4_gram():
    scores = bleu_by_protocol(["ein roter Hund lief weg"], ["ein roter Hund lag da"])
    assert scores["13a"]["bleu"] > 0 == scores["atat"]["bleu"]


def test_missing_packages_and_unequal_lengths_are_rejected(monkeypatch):
    with pytest.raises(ValueError, match="1 hypotheses, but 2 references"):
        bleu_by_protocol(["a"], ["a", "b"])
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(InputError, match="pip install"):
        split_compounds(["a"])
