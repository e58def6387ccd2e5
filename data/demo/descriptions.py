"""Descriptions: subjects and what they are, where the choice of one restricts the other."""

from itertools import product

from data.demo.clauses import Predicate
from data.demo.nouns import CHILDREN, DIMENSION, FEMININES, ROLES, SIBLINGS, THINGS
from data.demo.numbers import english_number, german_number
from data.demo.phrases import (
    PLAIN_FAMILY,
    PLURAL,
    PRONOUNS,
    Phrase,
    fits,
    grownups,
    phrase,
    phrases,
)
from data.demo.predicates import being, predicate


def ages() -> tuple[tuple[Phrase, Predicate], ...]:
    """Return who turns how old."""
    own, the = "my your his her our", "the this"
    small = {name: SIBLINGS[name] for name in ("son", "daughter")}
    large = {name: SIBLINGS[name] for name in ("sister", "brother", "friend", "colleague")}
    young = phrases(the, CHILDREN.values(), plain=True)
    young += phrases(own, small.values(), plain=True)
    older = PRONOUNS[:4] + grownups(the, "the our", plain=True)
    older += phrases(own, large.values(), plain=True)
    found = []
    for subject, age in (*product(young, range(1, 13)), *product(older, range(18, 61))):
        old, alt = ("year", "ein Jahr") if age == 1 else ("years", f"{german_number(age)} Jahre")
        turning = predicate("turn", f"{english_number(age)} {old} old", f"{alt} alt")
        found.append((subject, turning))
    return tuple(found)


def professions() -> tuple[tuple[Phrase, Predicate], ...]:
    """Return who is (not) what; the profession agrees with the subject: `Lehrerin`."""
    subjects = PRONOUNS + grownups("the the+ this these+", "") + PLAIN_FAMILY
    adjectives = ("", "good", "clever", "famous")
    found = []
    choices = product(subjects, FEMININES, adjectives, (False, True))
    for who_is, name, adjective, negative in choices:
        several = who_is.person == PLURAL
        if several and not adjective and who_is in PRONOUNS:
            continue  # "We are students." is too short
        noun = (FEMININES if who_is.gender == "f" else ROLES)[name]
        role = phrase("-+" if several else "a", adjective, noun, negative)
        tail, words = role.english_object, role.nominative
        found.append((who_is, predicate("be", tail, words, negative, "complement")))
    return tuple(found)


def qualities(codes: str) -> tuple[tuple[Phrase, Predicate], ...]:
    """Return what things are like; two adjectives of one dimension would contradict each other."""
    found: list[tuple[Phrase, Predicate]] = []
    for noun, code in product(THINGS.values(), codes.split()):
        for adjective in ("", *noun.adjectives) if fits(code, noun) else ():
            said = DIMENSION.get(adjective)
            others = [other for other in noun.adjectives if DIMENSION[other] != said]
            found += product([phrase(code, adjective, noun)], being(others))
    return tuple(found)
