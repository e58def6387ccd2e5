"""Constructions of sentences: functions from slot values to (English, German)."""

from itertools import product

from data.demo.clauses import Predicate, english, german
from data.demo.inflection import ACCUSATIVE, NOMINATIVE, relative_pronoun
from data.demo.phrases import PLURAL, Phrase
from data.demo.times import IN_A_CONDITION, PRESENT


def statement(subject, predicate, setting):
    """My sister opened the door yesterday."""
    return english(subject, predicate, setting), german(subject, predicate, setting)


def question(subject, predicate, setting):
    """Did my sister open the door yesterday?"""
    return english(subject, predicate, setting, True), german(subject, predicate, setting, "first")


def why(subject, predicate, setting):
    """Why did my sister open the door yesterday?"""
    inversion = question(subject, predicate, setting)
    return f"why {inversion[0]}", f"warum {inversion[1]}"


def described(pair: tuple[Phrase, Predicate], setting):
    """The red coat is very expensive."""
    return statement(*pair, setting)


def inquired(pair: tuple[Phrase, Predicate], setting):
    """Is the red coat very expensive?"""
    return question(*pair, setting)


def giving(subject, person, gift, setting):
    """The teacher gave my sister a book yesterday."""
    verb, thing = gift
    objects = f"{person.english_object} {thing.english_object}"
    action = Predicate(verb, objects, person.dative, thing.accusative)
    return statement(subject, action, setting)


def that(speaker, opinion, subject, predicate):
    """The teacher knows that my sister opened the door yesterday."""
    verb, setting = opinion
    main = statement(speaker, Predicate(verb, "", "", ""), PRESENT)
    clause = german(subject, predicate, setting, "last")
    return f"{main[0]} that {english(subject, predicate, setting)}", f"{main[1]}, dass {clause}"


def because(feeler, feeling, subject, predicate, setting, fronted):
    """The teacher is sad because my sister lost the key yesterday."""
    reason = f"because {english(subject, predicate, setting)}"
    grund = f"weil {german(subject, predicate, setting, 'last')}"
    main = english(feeler, feeling, PRESENT)
    if fronted:
        return f"{reason}, {main}", f"{grund}, {german(feeler, feeling, PRESENT, 'first')}"
    return f"{main} {reason}", f"{german(feeler, feeling, PRESENT)}, {grund}"


def conditions(subjects, predicates) -> tuple[tuple[str, str], ...]:
    """Return `if my brother has time today`, `wenn mein Bruder heute Zeit hat`."""
    clauses = product(subjects, predicates, IN_A_CONDITION)
    return tuple((f"if {english(*c)}", f"wenn {german(*c, 'last')}") for c in clauses)


def provided(condition, subject, predicate, setting, fronted):
    """If my brother has time, the teacher will go to the park."""
    main = english(subject, predicate, setting)
    if_english, if_german = condition
    if fronted:
        order_first = german(subject, predicate, setting, "first")
        return f"{if_english}, {main}", f"{if_german}, {order_first}"
    return f"{main} {if_english}", f"{german(subject, predicate, setting)}, {if_german}"


def _relative(head: Phrase, case: int) -> str:
    return relative_pronoun(head.gender, case, head.person == PLURAL)


def _qualify(head: Phrase, clause: str, satz: str) -> Phrase:
    return head._replace(
        english=f"{head.english} {clause}", nominative=f"{head.nominative}, {satz},"
    )


def who(head, predicate, setting, quality):
    """The man who bought the red car yesterday is very nice."""
    relative = head._replace(english="who", nominative=_relative(head, NOMINATIVE))
    clause = english(relative, predicate, setting)
    head = _qualify(head, clause, german(relative, predicate, setting, "last"))
    return statement(head, quality, PRESENT)


def whom(head, subject, verb_and_case, setting, quality):
    """The man whom my sister helped yesterday is very nice."""
    verb, case = verb_and_case
    action = Predicate(verb, "", "", "")
    satz = f"{_relative(head, case)} {german(subject, action, setting, 'last')}"
    head = _qualify(head, f"whom {english(subject, action, setting)}", satz)
    return statement(head, quality, PRESENT)


def which(pair, subject, verb, setting):
    """The coat that my sister bought yesterday is very expensive."""
    head, quality = pair
    action = Predicate(verb, "", "", "")
    satz = f"{_relative(head, ACCUSATIVE)} {german(subject, action, setting, 'last')}"
    head = _qualify(head, f"that {english(subject, action, setting)}", satz)
    return statement(head, quality, PRESENT)


def counting(subject, verb, first, second, setting):
    """My sister bought twenty-one apples and one egg yesterday."""
    objects, objekte = f"{first[0]} and {second[0]}", f"{first[1]} und {second[1]}"
    return statement(subject, Predicate(verb, objects, "", objekte), setting)
