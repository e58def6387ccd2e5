"""The demo's German inflection, checked with a handwritten paradigm and word lists."""

import re

import pytest

from data.demo import Demo
from data.demo.kinds import KINDS
from data.demo.permutation import Permutation

GENDERS = {
    "m": "Mann Lehrer Student Studenten Arzt Ingenieur Koch Nachbar Nachbarn Gast Junge Jungen"
    " Vater Onkel Bruder Sohn Freund Kollege Kollegen Brief Mantel Hut Tisch Stuhl Koffer Schlüssel"
    " Computer Apfel Kuchen Tee Kaffee Käse Park Garten Bahnhof",
    "f": "Frau Mutter Großmutter Tante Schwester Tochter Lehrerin Studentin Ärztin Ingenieurin"
    " Köchin Zeitung Geschichte Jacke Lampe Tasche Blume Tür Birne Wohnung Milch Küche Bibliothek"
    " Schule",
    "n": "Kind Mädchen Buch Kleid Hemd Bett Bild Auto Fahrrad Fenster Radio Ei Haus Wasser Brot"
    " Theater Büro Wetter Jahr",
    "p": "Männer Männern Frauen Lehrer Lehrern Studenten Ärzte Ärzten Ingenieure Ingenieuren Köche"
    " Köchen Nachbarn Gäste Gästen Kinder Kindern Mädchen Jungen Schwestern Brüder Brüdern Töchter"
    " Töchtern Söhne Söhnen Freunde Freunden Kollegen Lehrerinnen Studentinnen Ärztinnen"
    " Ingenieurinnen Köchinnen Bücher Zeitungen Briefe Geschichten Mäntel Kleider Hemden Jacken"
    " Hüte Tische Stühle Betten Lampen Bilder Autos Fahrräder Taschen Koffer Schlüssel Blumen Türen"
    " Fenster Radios Computer Äpfel Birnen Eier Kuchen Häuser Wohnungen Jahre",
}
# Correct phrases with `gut`, for m, f, n and plural, in the nominative, accusative and dative.
PARADIGM = """
der gute | die gute | das gute | die guten
den guten | die gute | das gute | die guten
dem guten | der guten | dem guten | den guten
dieser gute | diese gute | dieses gute | diese guten
diesen guten | diese gute | dieses gute | diese guten
diesem guten | dieser guten | diesem guten | diesen guten
kein guter | keine gute | kein gutes | keine guten
keinen guten | keine gute | kein gutes | keine guten
keinem guten | keiner guten | keinem guten | keinen guten
guter | gute | gutes | gute
guten | gute | gutes | gute
gutem | guter | gutem | guten
"""
CORRECT = {
    (gender, case, form.strip())
    for row, line in enumerate(PARADIGM.strip().splitlines())
    for case in [("nominative", "accusative", "dative")[row % 3]]
    for gender, form in zip("mfnp", line.split("|"), strict=True)
}
POSSESSIVE = re.compile(r"^([mdsk]?ein|ihr|unser)(?=$|e)")
WEAK = dict(Student="Studenten", Nachbar="Nachbarn", Junge="Jungen", Kollege="Kollegen")
ADJECTIVES = (
    "neu alt jung frisch groß klein lang rot blau teur billig kalt heiß schwer gut schön"
    " interessant freundlich nett klug berühmt"
)
ADJECTIVE = re.compile(rf"({ADJECTIVES.replace(' ', '|')})(e[mnrs]?)")
DETERMINER = re.compile(
    r"(d(er|ie|as|en|em)|(dies|kein|ein|mein|dein|sein|ihr|unser)(e[mnrs]?)?)", re.IGNORECASE
)
CASES = ("nominative", "accusative", "dative")


def _cases(determiner: str, adjective: str, noun: str) -> set[str]:
    """Grammatical cases of a phrase; the determiner or the adjective may be empty."""
    determiner = POSSESSIVE.sub("kein", determiner.lower())
    cases = set()
    for gender, nouns in GENDERS.items():
        for case in CASES if noun in nouns.split() else ():
            endings = {f for g, c, f in CORRECT if (g, c) == (gender, case)}
            if adjective:
                ending = ADJECTIVE.fullmatch(adjective)[2]
                fits = f"{determiner} gut{ending}".strip() in endings
            else:
                fits = determiner in {form.split()[0] for form in endings}
            if noun in WEAK and case != "nominative":
                fits = False
            if gender == "m" and noun in WEAK.values() and case == "nominative":
                fits = False
            if gender == "p" and case == "dative" and noun[-1] not in "ns":
                fits = False
            if fits:
                cases.add(case)
    return cases


def _noun_phrases(german: str):
    """Preceding word, determiner, adjective and noun of each noun phrase."""
    words = re.findall(r"[\w-]+|,", german)
    nouns = {noun for line in GENDERS.values() for noun in line.split()}
    for index, noun in enumerate(words):
        if noun not in nouns or noun in ("Jahr", "Jahre"):
            continue
        before = index - 1
        adjective = words[before] if before >= 0 and ADJECTIVE.fullmatch(words[before]) else ""
        before -= bool(adjective)
        determiner = words[before] if before >= 0 and DETERMINER.fullmatch(words[before]) else ""
        before -= bool(determiner)
        if determiner or adjective:
            yield words[before] if before >= 0 else "", determiner, adjective, noun


def test_the_agreement_checker_detects_errors():
    for correct in ("der gute Mann", "dem guten Mann", "einen alten Studenten", "kaltes Wasser"):
        *modifiers, noun = correct.split()
        determiner, adjective = modifiers if len(modifiers) == 2 else ("", *modifiers)
        assert _cases(determiner, adjective, noun), correct
    for incorrect in (
        ("der", "guter", "Mann"),
        ("die", "gute", "Mann"),
        ("den", "guten", "Student"),
        ("ein", "gute", "Frau"),
        ("mein", "", "Mutter"),
        ("eine", "", "Buch"),
        ("", "kalte", "Wasser"),
        ("den", "alten", "Männer"),
    ):
        assert _cases(*incorrect) == set(), incorrect


def test_articles_adjectives_and_nouns_agree():
    count = 0
    corpus = Demo("train")
    for pair in (corpus[i] for i in range(0, 80_000, 4)):
        for before, *phrase in _noun_phrases(pair.target):
            cases = _cases(*phrase)
            assert cases, (phrase, pair)
            if before == "mit":
                assert "dative" in cases, pair
            count += 1
    assert count > 20_000


@pytest.mark.parametrize(
    ("english", "stems", "case"),
    [
        (r" (visit|met|meet|call|invit)", r"besuch|tr[ei]ff|getroff|ruf|lad|läd", "accusative"),
        (r" (help|thank|answer)", r"h[ei]lf|geholfen|dank|antwort", "dative"),
    ],
)
def test_verbs_govern_their_case(english, stems, case):
    checked = 0
    for name in ("meeting family", "meeting, pronoun"):
        kind = KINDS[name]
        shuffled = Permutation(kind.count, "government")
        for source, target in (kind.sentence(shuffled(i)) for i in range(2_000)):
            if re.search(english, source):
                assert re.search(stems, target)
                *_, (_, *phrase) = _noun_phrases(target)
                assert case in _cases(*phrase), target
                checked += 1
    assert checked > 500
