"""BLEU by protocol, against sacreBLEU on text that was split here by other means."""

import sys

import pytest
from sacrebleu import corpus_bleu

from decode.options import InputError
from decode.protocols import bleu_by_protocol, split_compounds

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


def test_without_a_match_of_four_the_papers_score_is_zero():
    found = bleu_by_protocol(["ein roter Hund lief weg"], ["ein roter Hund lag da"])
    assert found["13a"]["bleu"] > 0 == found["atat"]["bleu"]


def test_what_is_missing_or_uneven_is_told(monkeypatch):
    with pytest.raises(ValueError, match="1 hypotheses, but 2 references"):
        bleu_by_protocol(["a"], ["a", "b"])
    monkeypatch.setitem(sys.modules, "sacremoses", None)
    with pytest.raises(InputError, match="pip install"):
        split_compounds(["a"])
