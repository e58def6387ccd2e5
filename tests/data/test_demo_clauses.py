"""The demo's German word order and perfect tense, checked with handwritten word lists."""

import re
from functools import cache

from data.demo import Demo
from data.pairs import Pair

PREFIXES = {"mach": "auf zu an aus", "ruf": "an", "hol": "ab", "lad": "ein", "läd": "ein"}
PREFIXES |= {"bring": "mit", "sieh": "fern", "steh": "auf"}
FINITE = set(
    "habe hast hat haben bin bist ist sind war warst waren werde wirst wird werden kann kannst"
    " können muss musst müssen sollte solltest sollten will willst wollen".split()
)
PRESENT_LAST = set(
    "kauft kaufen verkauft verkaufen wäscht waschen repariert reparieren schreibt schreiben liest"
    " lesen isst essen trinkt trinken aufmacht aufmachen zumacht zumachen anmacht anmachen ausmacht"
    " ausmachen mitbringt mitbringen schläft schlafen arbeitet arbeiten wartet warten singt singen"
    " tanzt tanzen bleibt bleiben geht gehen läuft laufen kommt kommen reist reisen fernsieht"
    " fernsehen ankommt ankommen anruft anrufen".split()
)


@cache
def _sample() -> list[Pair]:
    corpus = Demo("train")
    return [corpus[i] for i in range(0, len(corpus), 4)]


def test_separable_prefixes_end_the_main_clause():
    stems = set()
    for pair in _sample()[:20_000]:
        for clause in re.split("[,.?]", pair.target):
            words = clause.split()
            for word in words:
                for stem, prefixes in PREFIXES.items():
                    if word.lower().startswith(stem):
                        assert words[-1] in prefixes.split(), pair
                        stems.add(stem)
    assert len(stems) >= 6


def test_subordinate_clauses_end_in_the_finite_verb():
    counts = dict.fromkeys(("dass", "weil", "wenn", "relative"), 0)
    relative = re.compile(r"^ (der|die|das|den|dem|denen) ")
    for pair in _sample()[:20_000]:
        clauses = re.split("[,.?]", pair.target)
        for clause in clauses:
            words = clause.split()
            opener = words[0].lower() if words else ""
            if relative.match(clause):
                opener = "relative"
            if opener in counts:
                counts[opener] += 1
                assert words[-1] in FINITE | PRESENT_LAST, pair
                assert words[-1] in PRESENT_LAST or not FINITE & set(words[:-1]), pair
    assert all(count > 100 for count in counts.values()), counts


FRONTED = (
    "Gestern|Letzte Woche|Heute Morgen|Heute Abend|Heute|Morgen|Nächste Woche|Jetzt|Im Moment"
    r"|Jede Woche|Jeden Tag|Am \w+tag um \w+ Uhr|Am Mittwoch um \w+ Uhr|Am \w+ten \w+"
)


SUBJECT = re.compile(
    "ich|du|er|sie|wir|d(er|ie|as)|dies(er|e|es)|(m|d|s)?eine?|ihre?|unsere?", re.IGNORECASE
)


def test_the_finite_verb_is_second_after_a_fronted_adverb():
    count = 0
    for pair in _sample()[:20_000]:
        fronted = re.match(rf"({FRONTED}) (\w+) (\w+)", pair.target)
        if fronted:
            count += 1
            assert fronted[2] in FINITE or re.fullmatch(r"[a-zäöüß]+(e|t|n)", fronted[2]), pair
            assert SUBJECT.fullmatch(fronted[3]), pair
    assert count > 2_000


PERFECT = {
    "bin bist ist sind": "gegangen gelaufen gekommen gereist geblieben angekommen aufgestanden"
    " geworden",
    "habe hast hat haben": "gekauft gewaschen geschrieben gelesen gegessen"
    " getrunken gefunden verloren vergessen aufgemacht zugemacht angemacht ausgemacht mitgebracht"
    " gegeben gezeigt geschickt geliehen getroffen angerufen eingeladen gesucht"
    " abgeholt geholfen gedankt geantwortet getanzt gesprochen geschlafen gearbeitet gewartet"
    " gesungen ferngesehen",
}


def test_the_perfect_takes_haben_or_sein():
    found_participles = set()
    for pair in _sample():
        for clause in re.split("[,.?]", pair.target):
            words = clause.lower().split()
            for auxiliaries, participles in PERFECT.items():
                for word in set(participles.split()) & set(words):
                    assert set(auxiliaries.split()) & set(words), pair
                    assert word in words[-2:], pair
                    found_participles.add(word)
    assert found_participles == set(" ".join(PERFECT.values()).split())
