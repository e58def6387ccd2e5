"""Clauses: a subject, a predicate and a setting in the word order of English and of German.

The finite verb of a German main clause is second, of a question first, of a subordinate clause
last; what splits off it (an infinitive, a participle, a separable prefix) closes the clause.
"""

from typing import NamedTuple

from data.demo.phrases import SINGULAR, Phrase
from data.demo.verbs import MODALS, VERBS, Verb


class Predicate(NamedTuple):
    """A verb and what it governs; in German `early` stands before the adverb, `late` after it."""

    verb: Verb
    english: str
    early: str
    late: str
    negative: bool = False


class TimeFrame(NamedTuple):
    """A tense (simple, now, past or a modal), an adverb, and its place in the English sentence."""

    tense: str
    english: str
    german: str
    place: str


def join(*words: str) -> str:
    """Join the words that are not empty."""
    return " ".join(filter(None, words))


def _english_verb(verb: Verb, tense: str, person: int, split: bool) -> tuple[str, str]:
    """Return the auxiliary, which `split` (a question, a negation) requires, and the rest."""
    do = "does" if person == SINGULAR else "do"
    if tense == "want":
        if split:
            return do, f"want to {verb.base}"
        return "", f"{'wants' if person == SINGULAR else 'want'} to {verb.base}"
    if tense in MODALS:
        return tense, verb.base
    if tense == "now":
        return VERBS["be"].present[person], verb.ing
    finite = (verb.past if tense == "past" else verb.present)[person]
    if verb.base == "be":
        return finite, ""
    if split:
        return "did" if tense == "past" else do, verb.base
    return "", finite


def english(subject: Phrase, predicate: Predicate, setting: TimeFrame, question=False) -> str:
    """Return an English clause."""
    verb, tail, _, _, negative = predicate
    tense, adverb, _, place = setting
    auxiliary, rest = _english_verb(verb, tense, subject.person, question or negative)
    before = auxiliary if question else ""
    after = "" if question else auxiliary
    if negative:
        after = "cannot" if after == "can" else join(after, "not")
    front, middle, end = (adverb if place == where else "" for where in ("front", "middle", "end"))
    return join(front, before, subject.english, after, middle, rest, verb.particle, tail, end)


def german(subject: Phrase, predicate: Predicate, setting: TimeFrame, order: str = "main") -> str:
    """Return a German clause; `order` puts its finite verb: main (second), first or last."""
    verb, _, early, late, _ = predicate
    tense, _, adverb, place = setting
    person, name = subject.person, subject.nominative
    if tense in MODALS:
        finite, closing = MODALS[tense][person], verb.infinitive
    elif tense == "past" and verb.preterite:
        finite, closing = verb.preterite[person], ""
    elif tense == "past":
        finite, closing = verb.auxiliary[person], verb.participle
    else:
        finite, closing = verb.finite[person], verb.prefix
    if order == "last":
        joined = closing + finite if closing == verb.prefix else f"{closing} {finite}"
        return join(name, early, adverb, late, joined)
    if order == "first":
        return join(finite, name, early, adverb, late, closing)
    if place == "front":
        return join(adverb, finite, name, early, late, closing)
    return join(name, finite, early, adverb, late, closing)
