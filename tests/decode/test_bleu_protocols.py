"""BLEU by protocol, against sacreBLEU on text that was split here by other means."""

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

OUTPUT = [
    "Der rot-grüne Hund sah das E-Mail-Format.",
    "Ist die Zug-um-Zug Lösung wirklich gut?",
    "Wir sahen - wie immer - den Fuchs, und er lief zu A.B hin.",
]
RIGHT = [
    "Der rot-grüne Hund las das E-Mail-Format.",
    "Ist eine Zug-um-Zug Lösung wirklich gut?",
    "Wir sahen - wie immer - den Fuchs; und er lief zu A.B hin!",
]


def by_hand(sentence):
    """What Moses and the compound rule make of these sentences, by another road than a regex."""
    words = []
    for word in sentence.split():
        bare = word.rstrip(".?!,;")
        words += [word] if word == "-" else " ##AT##-##AT## ".join(bare.split("-")).split()
        words += word[len(bare) :]
    return " ".join(words)


def test_compounds_are_split_as_the_papers_are():
    assert split_compounds(OUTPUT) == [by_hand(sentence) for sentence in OUTPUT]
    # A hyphen begins where the last one ended: single letters between two stay together.
    assert split_compounds(["a-b-c"]) == ["a ##AT##-##AT## b-c"]
    assert split_compounds(["sagt er“"], "de") == ["sagt er &quot;"]


def test_each_protocol_is_what_its_signature_says():
    found = bleu_by_protocol(OUTPUT, RIGHT)
    for name in "13a", "intl":
        expected = corpus_bleu(OUTPUT, [RIGHT], tokenize=name).score
        assert (
            found[name]["bleu"] == pytest.approx(expected)
            and f"|tok:{name}|" in found[name]["signature"]
        )
    output, right = ([by_hand(sentence) for sentence in side] for side in (OUTPUT, RIGHT))
    expected = corpus_bleu(output, [right], tokenize="none", smooth_method="none", force=True)
    assert found["atat"]["bleu"] == pytest.approx(expected.score)
    assert "|tok:moses-de-atat|moses:sacremoses-" in found["atat"]["signature"]
    assert "|smooth:none|" in found["atat"]["signature"]
    assert len({round(each["bleu"], 3) for each in found.values()}) == 3


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
def test_words_without_spaces_are_counted_as_sacrebleu_does(codes, text, names, monkeypatch):
    for code in codes:
        assert protocols_of(code) == names
        found, missing = bleu_by_protocol(*text, code), missing_protocols(code)
        assert [*found] == [name for name in names if name not in missing]
        for name, each in found.items():
            assert each["bleu"] == corpus_bleu(text[0], [text[1]], tokenize=name).score > 10
            assert f"|tok:{name}|" in each["signature"]
    installed = importlib.util.find_spec
    monkeypatch.setattr(bleu_protocols, "find_spec", lambda name: installed("os"))
    assert missing_protocols(codes[0]) == {}
    monkeypatch.setattr(bleu_protocols, "find_spec", lambda name: None)
    code = codes[0]
    left = {f"{code}-mecab": f"pip install 'sacrebleu[{code}]'"} if code in ("ja", "ko") else {}
    assert missing_protocols(code) == left


def test_moses_goes_by_the_language_however_its_code_is_written():
    assert protocols_of("deu_Latn") == PROTOCOLS == protocols_of("pt-BR")
    signature = bleu_by_protocol(OUTPUT, RIGHT, "deu_Latn")["atat"]["signature"]
    assert "|tok:moses-de-atat|" in signature
    assert bleu_by_protocol(OUTPUT, RIGHT, "deu") == bleu_by_protocol(OUTPUT, RIGHT)


@pytest.mark.parametrize(
    ("code", "message"),
    [("xx", "near it: xh"), ("jap", r"near it: .*jpn"), ("german", "german is not"), ("", "= is")],
)
def test_an_unknown_language_is_told_with_codes_near_it(code, message):
    with pytest.raises(InputError, match=message):
        bleu_by_protocol(OUTPUT, RIGHT, code)


def test_without_a_match_of_four_the_papers_score_is_zero():
    found = bleu_by_protocol(["ein roter Hund lief weg"], ["ein roter Hund lag da"])
    assert found["13a"]["bleu"] > 0 == found["atat"]["bleu"]


def test_what_is_missing_or_uneven_is_told(monkeypatch):
    with pytest.raises(ValueError, match="1 hypotheses, but 2 references"):
        bleu_by_protocol(["a"], ["a", "b"])
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(InputError, match="pip install"):
        split_compounds(["a"])
