"""Places and cities with their prepositions: `at school`, `to the station`."""

from data.demo.inflection import ACCUSATIVE, DATIVE, article

# Place, English prepositions (at, to, from), German noun, gender, prepositions (at, to, from).
_PLACES = """
park    | in the, to the, from the | Park m       | in in aus
garden  | in the, to the, from the | Garten m     | in in aus
kitchen | in the, to the, from the | Küche f      | in in aus
library | in the, to the, from the | Bibliothek f | in in aus
school  | at, to, from             | Schule f     | in in aus
theater | at the, to the, from the | Theater n    | in in aus
office  | at the, to the, from the | Büro n       | in in aus
station | at the, to the, from the | Bahnhof m    | an zu von
"""
CITIES = {"Berlin": "Berlin", "Hamburg": "Hamburg", "Vienna": "Wien", "Munich": "München"}
CONTRACTIONS = {
    **{("in", "dem"): "im", ("in", "das"): "ins", ("an", "dem"): "am"},
    **{("zu", "dem"): "zum", ("zu", "der"): "zur", ("von", "dem"): "vom"},
}


def _places(table: str) -> dict[str, dict[str, tuple[str, str]]]:
    places: dict[str, dict[str, tuple[str, str]]] = {}
    for line in table.strip().splitlines():
        name, english, german, prepositions = (column.strip() for column in line.split("|"))
        german, gender = german.split()
        ways = zip(("at", "to", "from"), english.split(", "), prepositions.split(), strict=True)
        places[name] = {}
        for way, english_preposition, preposition in ways:
            case = ACCUSATIVE if way == "to" and preposition == "in" else DATIVE
            den = article(gender, case)
            words = CONTRACTIONS.get((preposition, den), f"{preposition} {den}")
            places[name][way] = (f"{english_preposition} {name}", f"{words} {german}")
    return places


# For every place the (English, German) phrases for at, to and from.
PLACES = _places(_PLACES)
