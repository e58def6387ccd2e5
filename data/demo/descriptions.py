"""Descriptions: pairs of subject and predicate in which the one restricts the other."""

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
    """Return pairs of a person and an age that the person turns."""
    possessives, demonstratives = "my your his her our", "the this"
    small = {name: SIBLINGS[name] for name in ("son", "daughter")}
    large = {name: SIBLINGS[name] for name in ("sister", "brother", "friend", "colleague")}
    young = phrases(demonstratives, CHILDREN.values(), plain=True)
    young += phrases(possessives, small.values(), plain=True)
    older = PRONOUNS[:4] + grownups(demonstratives, "the our", plain=True)
    older += phrases(possessives, large.values(), plain=True)
    pairs = []
    for subject, age in (*product(young, range(1, 13)), *product(older, range(18, 61))):
        old, alt = ("year", "ein Jahr") if age == 1 else ("years", f"{german_number(age)} Jahre")
        turning = predicate("turn", f"{english_number(age)} {old} old", f"{alt} alt")
        pairs.append((subject, turning))
    return tuple(pairs)


def professions() -> tuple[tuple[Phrase, Predicate], ...]:
    """Return pairs of a person and a profession, also denied; in agreement: `Lehrerin`."""
    subjects = PRONOUNS + grownups("the the+ this these+", "") + PLAIN_FAMILY
    adjectives = ("", "good", "clever", "famous")
    pairs = []
    choices = product(subjects, FEMININES, adjectives, (False, True))
    for subject, name, adjective, negative in choices:
        several = subject.person == PLURAL
        if several and not adjective and subject in PRONOUNS:
            continue  # "We are students." is too short
        noun = (FEMININES if subject.gender == "f" else ROLES)[name]
        role = phrase("-+" if several else "a", adjective, noun, negative)
        tail, words = role.english_object, role.nominative
        pairs.append((subject, predicate("be", tail, words, negative, "complement")))
    return tuple(pairs)


def qualities(codes: str) -> tuple[tuple[Phrase, Predicate], ...]:
    """Return pairs of a thing and a quality; never two adjectives of one dimension."""
    pairs: list[tuple[Phrase, Predicate]] = []
    for noun, code in product(THINGS.values(), codes.split()):
        for adjective in ("", *noun.adjectives) if fits(code, noun) else ():
            dimension = DIMENSION.get(adjective)
            compatible = [
                candidate for candidate in noun.adjectives if DIMENSION[candidate] != dimension
            ]
            pairs += product([phrase(code, adjective, noun)], being(compatible))
    return tuple(pairs)
