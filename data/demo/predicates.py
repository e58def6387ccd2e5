"""Predicates of the demo sentences, affirmed and denied."""

from collections.abc import Iterable
from itertools import product

from data.demo.clauses import Predicate, join
from data.demo.nouns import DIMENSION, GERMAN_ADJECTIVE
from data.demo.numbers import english_number, german_number
from data.demo.phrases import FAMILY, OTHERS, PEOPLE, PRONOUNS, Phrase, things
from data.demo.places import CITIES, PLACES
from data.demo.valency import (
    ACTIONS,
    EVENTS,
    GIFTS,
    HABITS,
    LIKES,
    MEETINGS,
    MOVES,
    SEPARABLE,
    STATES,
)
from data.demo.verbs import VERBS

DEGREES = (("", ""), ("very", "sehr"), ("quite", "ziemlich"), ("really", "wirklich"))


def predicate(verb: str, tail: str, words: str, negative=False, part="object") -> Predicate:
    """Return a predicate: `tail` follows the English verb, `words` are the German translation.

    `part` is "object", "pronoun" or "complement": `nicht` follows an object and precedes a
    complement; `kein` needs no `nicht`.
    """
    if negative and not words.startswith("kein"):
        if part == "object":
            return Predicate(VERBS[verb], tail, words, "nicht", negative)
        words = join("nicht", words)
    early, late = (words, "") if part == "pronoun" else ("", words)
    return Predicate(VERBS[verb], tail, early, late, negative)


def _acts(table: dict[str, str], codes: str, negative=False) -> tuple[Predicate, ...]:
    """Return actions on things, from a table of verbs and nouns."""
    return tuple(
        predicate(verb, thing.english_object, thing.accusative, negative)
        for verb, names in table.items()
        for thing in things(names, codes, negative)
    )


def _meetings(people: Iterable[Phrase], negative=False, part="object") -> tuple[Predicate, ...]:
    """Return actions that involve people."""
    predicates = []
    for (verb, government), person in product(MEETINGS.items(), people):
        words = person.accusative if government == "accusative" else person.dative
        tail = person.english_object
        if government == "mit":
            predicates.append(
                predicate(verb, f"with {tail}", f"mit {words}", negative, "complement")
            )
        elif words and not (part == "pronoun" and verb == "pick up"):  # not `picks up me`
            predicates.append(predicate(verb, tail, words, negative, part))
    return tuple(predicates)


def _moves(table: dict[str, str], negative=False) -> tuple[Predicate, ...]:
    """Return actions at places, and movements to and from them."""
    return tuple(
        predicate(verb, *place[way], negative, "complement")
        for way, verbs in table.items()
        for verb, place in product(verbs.split(","), PLACES.values())
    )


def _cities(verb: str, to: str, nach: str) -> tuple[Predicate, ...]:
    cities = CITIES.items()
    return tuple(predicate(verb, f"{to} {city}", f"{nach} {stadt}") for city, stadt in cities)


def being(adjectives: Iterable[str], negative=False) -> tuple[Predicate, ...]:
    """Return predicates such as `is (very) tired`; colors have no degree."""
    predicates = []
    for adjective in adjectives:
        for more, mehr in DEGREES[: 1 if negative or DIMENSION[adjective] == "color" else None]:
            words = join(mehr, GERMAN_ADJECTIVE[adjective])
            predicates.append(predicate("be", join(more, adjective), words, negative, "complement"))
    return tuple(predicates)


def _numbered() -> tuple[Predicate, ...]:
    """Return actions in rooms one to ninety-nine, and with pages one to ninety-nine."""
    return tuple(
        predicate(verb, f"{where} {english_number(n)}", f"{wo} {german_number(n)}")
        for verb, where, wo in (
            ("sleep", "in room", "in Zimmer"),
            ("work", "in room", "in Zimmer"),
            ("wait", "in room", "in Zimmer"),
            ("read", "page", "Seite"),
        )
        for n in range(1, 100)
    )


ANY, NO = "the the+ a - -+ this these+ my his her", "the the+ a any any+ this my his her"
OWN = "the the+ this these+ my your his her our"
DOING = _acts(ACTIONS, ANY)
SWITCHING = _acts(SEPARABLE, OWN)
HAPPENING = _acts(EVENTS, OWN)
NOT_DOING = _acts(ACTIONS, NO, True) + _acts(SEPARABLE, NO, True)
HOMES = tuple(
    predicate("live", f"in {home.english_object}", f"in {home.dative}")
    for home in things("house apartment", "a the this my our")
) + _cities("live", "in", "in")
HAVING = _acts(STATES, ANY) + _acts(STATES, NO, True)
HAVING += _acts(LIKES, f"- -+ {OWN}") + _acts(LIKES, f"- -+ {OWN}", True)
TRAVELING, ARRIVING = _cities("travel", "to", "nach"), _cities("arrive", "in", "in")
MOVING = _moves(MOVES) + TRAVELING + (predicate("watch TV", "", ""),)
NOT_MOVING = _moves(MOVES, True) + (predicate("watch TV", "", "", True),)
RISING = (predicate("get up", "early", "früh"), predicate("get up", "late", "spät"))
LIVING = _acts(HABITS, "a - -+") + _acts({"read": "newspaper"}, "the")
LIVING += _moves({"at": "work,wait,watch TV", "to": "go"})
FEELING = ("tired", "sick", "hungry", "happy", "sad")
FEELINGS = being(FEELING) + being(FEELING, True)
TRAITS = being(("nice", "clever", "happy", "famous"))
MOODS = being(("happy", "sad", "angry", "surprised"))
SKIES = being(("good", "cold", "beautiful"))
FATES = being(("sick", "tired")) + ARRIVING
FATES += (predicate("call", "", ""), predicate("have", "time", "Zeit"))
KNOWING = tuple(predicate("know", person.english_object, person.accusative) for person in PEOPLE)
MEETING_FAMILY, NOT_MEETING_FAMILY = _meetings(FAMILY), _meetings(FAMILY, True)
MEETING_OTHERS = _meetings(OTHERS)
MEETING_ME = _meetings(PRONOUNS, part="pronoun")
GIVING = tuple(
    (VERBS[verb], thing)
    for verb, names in GIFTS.items()
    for thing in things(names, "the the+ a -+ this these+")
)
NUMBERED = _numbered()
DEEDS, DENIALS = DOING + SWITCHING + MOVING, NOT_DOING + NOT_MOVING
