"""German inflection: determiners, adjectives and nouns agree in gender, number and case."""

from data.demo.nouns import GERMAN_ADJECTIVE, Noun

NOMINATIVE, ACCUSATIVE, DATIVE = range(3)
# Endings by case, then by m, f, n and plural.
DEFINITE = ("der die das die", "den die das die", "dem der dem den")
STRONG = ("er e es e", "en e es e", "em er em en")  # also those of dieser
MIXED = ("er e es en", "en e es en", "en en en en")  # after ein
WEAK = ("e e e en", "en e e en", "en en en en")  # after der
EIN = ("- e - e", "en e - e", "em er em en")
STEM = {"teuer": "teur", "müde": "müd"}  # before an ending


def _column(gender: str, plural: bool) -> int:
    return 3 if plural else "mfn".index(gender)


def _ending(paradigm: tuple[str, ...], case: int, column: int) -> str:
    return paradigm[case].split()[column].strip("-")


def _determiner(stem: str, case: int, column: int) -> tuple[str, tuple[str, ...]]:
    """Return the inflected determiner and the adjective endings that it requires."""
    if stem == "der":
        return _ending(DEFINITE, case, column), WEAK
    if stem == "dies":
        return stem + _ending(STRONG, case, column), WEAK
    return (stem + _ending(EIN, case, column), MIXED) if stem else ("", STRONG)


def article(gender: str, case: int, plural: bool = False) -> str:
    """Return the definite article."""
    return _determiner("der", case, _column(gender, plural))[0]


def relative_pronoun(gender: str, case: int, plural: bool) -> str:
    """Return the relative pronoun, which only in the dative plural is not the article."""
    return "denen" if plural and case == DATIVE else article(gender, case, plural)


def decline(stem: str, adjective: str, noun: Noun, case: int, plural: bool) -> str:
    """Return a German noun phrase; `stem` names the determiner and may be empty."""
    column = _column(noun.gender, plural)
    determiner, endings = _determiner(stem, case, column)
    if adjective:
        word = GERMAN_ADJECTIVE[adjective]
        adjective = STEM.get(word, word) + _ending(endings, case, column)
    if plural:
        german = noun.german_plural
        german += "n" if case == DATIVE and german[-1] not in "ns" else ""
    else:
        german = noun.german if case == NOMINATIVE else noun.oblique
    return " ".join(filter(None, (determiner, adjective, german)))
