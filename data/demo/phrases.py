"""Noun phrases and pronouns in English and German: the subjects and objects of sentences.

A code stands for a determiner and a number: English determiner (- for none), + for the plural.
"""

from collections.abc import Iterable
from itertools import product
from typing import NamedTuple

from data.demo import nouns
from data.demo.inflection import ACCUSATIVE, decline
from data.demo.nouns import Noun
from data.demo.numbers import english_number, german_number

SINGULAR, PLURAL = 2, 3  # as grammatical persons: 0 ich, 1 du, 2 er, 3 wir and sie


class Phrase(NamedTuple):
    """A noun phrase or pronoun in every form that a clause may need."""

    english: str
    english_object: str
    nominative: str
    accusative: str
    dative: str
    person: int
    gender: str


# English determiners to the German stems that are inflected.
DETERMINERS = {
    **{"the": "der", "this": "dies", "these": "dies", "a": "ein", "any": "kein", "-": ""},
    **{"my": "mein", "your": "dein", "his": "sein", "her": "ihr", "our": "unser"},
}
# The accusative of `they` is omitted: it is `sie`, like that of `she`, so German is ambiguous.
PRONOUNS = (
    Phrase("I", "me", "ich", "mich", "mir", 0, "m"),
    Phrase("you", "you", "du", "dich", "dir", 1, "m"),
    Phrase("he", "him", "er", "ihn", "ihm", SINGULAR, "m"),
    Phrase("she", "her", "sie", "sie", "ihr", SINGULAR, "f"),
    Phrase("we", "us", "wir", "uns", "uns", PLURAL, "m"),
    Phrase("they", "them", "sie", "", "ihnen", PLURAL, "m"),
)
WEATHER = Phrase("the weather", "", "das Wetter", "", "", SINGULAR, "n")


def phrase(code: str, adjective: str, noun: Noun, negative: bool = False) -> Phrase:
    """Return a noun phrase; in a negative clause the German of an indefinite one is `kein`."""
    word, plural = code.rstrip("+"), code.endswith("+")
    stem = "kein" if negative and word in "-a" else DETERMINERS[word]
    head = f"{adjective} {noun.english_plural if plural else noun.english}".strip()
    if word == "a" and head[0] in "aeiou":
        word = "an"
    english = head if word == "-" else f"{word} {head}"
    nominative, accusative, dative = (
        decline(stem, adjective, noun, case, plural) for case in range(3)
    )
    person = PLURAL if plural else SINGULAR
    return Phrase(english, english, nominative, accusative, dative, person, noun.gender)


def fits(code: str, noun: Noun) -> bool:
    """Return whether a noun goes with a code: uncountable nouns have neither `a` nor plural."""
    uncounted = noun.english_plural == "-"
    return code != "a" and code[-1] != "+" if uncounted else code not in ("-", "any")


def phrases(codes: str, words: Iterable[Noun], negative=False, plain=False) -> tuple[Phrase, ...]:
    """Return the nouns with each determiner, without and (unless plain) with adjectives."""
    return tuple(
        phrase(code, adjective, noun, negative)
        for noun, code in product(words, codes.split())
        for adjective in ("", *noun.adjectives)
        if fits(code, noun) and not (plain and adjective) and (adjective or code[0] != "-")
    )


def things(names: str, codes: str, negative=False) -> tuple[Phrase, ...]:
    """Return the named things with each determiner."""
    return phrases(codes, [nouns.THINGS[name] for name in names.split()], negative)


def grownups(codes: str, role_codes: str, plain=False) -> tuple[Phrase, ...]:
    """Return strangers and people with roles, such as `our doctor`."""
    strangers = phrases(codes, nouns.STRANGERS.values(), plain=plain)
    return strangers + phrases(role_codes, nouns.ROLES.values(), plain=plain)


def _family(codes: str, plain=False) -> tuple[Phrase, ...]:
    elders = phrases(codes, nouns.ELDERS.values(), plain=plain)
    return elders + phrases(f"{codes} my+ his+ our+", nouns.SIBLINGS.values(), plain=plain)


def counts(names: str) -> tuple[tuple[str, str], ...]:
    """Return `one egg`, `ein Ei` to `ninety-nine eggs`, `neunundneunzig Eier`, as objects."""
    objects = []
    for noun in (nouns.THINGS[name] for name in names.split()):
        ein = decline("ein", "", noun, ACCUSATIVE, False)
        objects.append((f"one {noun.english}", ein))
        for number in range(2, 100):
            zahl = f"{german_number(number)} {noun.german_plural}"
            objects.append((f"{english_number(number)} {noun.english_plural}", zahl))
    return tuple(objects)


GROWNUPS = grownups("the the+ a this these+", "the the+ a this our")
PLAIN_GROWNUPS = grownups("the the+ a this these+", "the the+ a our", plain=True)
FAMILY = _family("my your his her our")
PLAIN_FAMILY = _family("my your his her our", plain=True)
CHILDREN = phrases("the the+ a this these+", nouns.CHILDREN.values())
PEOPLE = GROWNUPS + FAMILY
SIMPLE = PRONOUNS + PLAIN_GROWNUPS + PLAIN_FAMILY
ANYONE = PRONOUNS + GROWNUPS
SPEAKERS = PRONOUNS + PLAIN_GROWNUPS
OTHERS = GROWNUPS + CHILDREN
HEADS = grownups("the the+ this these+", "the the+ this these+")  # of relative clauses
