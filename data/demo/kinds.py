"""Kinds of sentences: a construction, choices for its slots, a share of the corpus.

A kind must have room for its share; the same deed has more weight with nouns for subjects.
"""

import math
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

from data.demo.descriptions import ages, professions, qualities
from data.demo.inflection import ACCUSATIVE, DATIVE
from data.demo.phrases import (
    ANYONE,
    CHILDREN,
    FAMILY,
    GROWNUPS,
    HEADS,
    OTHERS,
    PEOPLE,
    PLAIN_FAMILY,
    PRONOUNS,
    SIMPLE,
    SPEAKERS,
    WEATHER,
    counts,
)
from data.demo.predicates import (
    ARRIVING,
    DEEDS,
    DENIALS,
    DOING,
    FATES,
    FEELINGS,
    GIVING,
    HAPPENING,
    HAVING,
    HOMES,
    KNOWING,
    LIVING,
    MEETING_FAMILY,
    MEETING_ME,
    MEETING_OTHERS,
    MOODS,
    MOVING,
    NOT_MEETING_FAMILY,
    NUMBERED,
    RISING,
    SKIES,
    SWITCHING,
    TRAITS,
    TRAVELING,
)
from data.demo.sentences import (
    because,
    conditions,
    counting,
    described,
    giving,
    inquired,
    provided,
    question,
    statement,
    that,
    which,
    who,
    whom,
    why,
)
from data.demo.times import (
    ANYWHERE,
    AT_AN_HOUR,
    BIRTHDAYS,
    DENIED,
    EXPLICABLE,
    FELT,
    FINAL,
    HABITUAL,
    HABITUAL_ASKED,
    HAPPENED,
    HOPED,
    NOT_NOW,
    NOW,
    ON_A_CONDITION,
    ON_A_DATE,
    OVER,
    OVER_OR_COMING,
    PAST,
    PRESENT,
    WANTED,
)
from data.demo.valency import MEETINGS
from data.demo.verbs import VERBS


class Kind(NamedTuple):
    """A kind of sentence: its share, last mark and construction, and the choices of its slots."""

    share: int
    mark: str
    say: Callable[..., tuple[str, str]]
    slots: tuple[Sequence, ...]

    @property
    def count(self) -> int:  # type: ignore[override]  # no tuple's
        """The number of sentences of this kind."""
        return math.prod(map(len, self.slots))

    def sentence(self, number: int) -> tuple[str, str]:
        """Return the number-th sentence in English and in German."""
        choices = []
        for slot in self.slots:
            number, digit = divmod(number, len(slot))
            choices.append(slot[digit])
        english, german = self.say(*choices)
        return self._written(english), self._written(german)

    def _written(self, text: str) -> str:
        return text[0].upper() + text[1:] + self.mark


EITHER = (False, True)  # the subordinate clause last or first
PROFESSIONS = professions()
AFFIRMED = tuple(pair for pair in PROFESSIONS if not pair[1].negative)
QUALITIES = qualities("the the+ this these+ my your his her our")
OPINIONS = (
    *product((VERBS[name] for name in ("know that", "think", "say")), FINAL),
    *product([VERBS["hope"]], HOPED),
)
TRADED = tuple(VERBS[name] for name in ("buy", "sell", "find", "look for"))
GOT = tuple(VERBS[name] for name in ("buy", "sell", "bring"))
GOVERNED = {"accusative": ACCUSATIVE, "dative": DATIVE}
MET = tuple((VERBS[verb], GOVERNED[case]) for verb, case in MEETINGS.items() if case in GOVERNED)
FEW, MANY = counts("apple chair book flower"), counts("pear egg lamp hat")

KINDS = {
    "profession": Kind(3, ".", described, (PROFESSIONS, (PRESENT, NOW, PAST))),
    "profession?": Kind(1, "?", inquired, (AFFIRMED, (PRESENT, NOW, PAST))),
    "quality": Kind(4, ".", described, (QUALITIES, (PRESENT, PAST))),
    "quality?": Kind(1, "?", inquired, (QUALITIES, (PRESENT, PAST))),
    "feeling": Kind(3, ".", statement, (SIMPLE + CHILDREN, FEELINGS, FELT)),
    "having": Kind(3, ".", statement, (PEOPLE, HAVING, (PRESENT,))),
    "having, pronoun": Kind(2, ".", statement, (PRONOUNS, HAVING + KNOWING, (PRESENT,))),
    "living": Kind(1, ".", statement, (SIMPLE, HOMES, (PRESENT,))),
    "doing": Kind(7, ".", statement, (PEOPLE, DOING, ANYWHERE)),
    "doing, pronoun": Kind(4, ".", statement, (PRONOUNS, DOING, ANYWHERE)),
    "happening": Kind(2, ".", statement, (PEOPLE, HAPPENING, HAPPENED)),
    "happening, pronoun": Kind(1, ".", statement, (PRONOUNS, HAPPENING, HAPPENED)),
    "switching": Kind(5, ".", statement, (PEOPLE, SWITCHING, ANYWHERE)),
    "switching, pronoun": Kind(3, ".", statement, (PRONOUNS, SWITCHING, ANYWHERE)),
    "meeting family": Kind(3, ".", statement, (GROWNUPS, MEETING_FAMILY, ANYWHERE)),
    "meeting others": Kind(3, ".", statement, (FAMILY, MEETING_OTHERS, ANYWHERE)),
    "meeting, pronoun": Kind(3, ".", statement, (PRONOUNS, MEETING_FAMILY, ANYWHERE)),
    "meeting me": Kind(3, ".", statement, (PEOPLE, MEETING_ME, ANYWHERE)),
    "giving family": Kind(3, ".", giving, (GROWNUPS, FAMILY, GIVING, ANYWHERE)),
    "giving others": Kind(2, ".", giving, (FAMILY, OTHERS, GIVING, ANYWHERE)),
    "giving, pronoun": Kind(1, ".", giving, (PRONOUNS, FAMILY, GIVING, ANYWHERE)),
    "moving": Kind(4, ".", statement, (PEOPLE + CHILDREN, MOVING, ANYWHERE)),
    "moving, pronoun": Kind(3, ".", statement, (PRONOUNS, MOVING, ANYWHERE)),
    "habit": Kind(3, ".", statement, (PEOPLE, LIVING, HABITUAL)),
    "habit, pronoun": Kind(1, ".", statement, (PRONOUNS, LIVING, HABITUAL)),
    "rising": Kind(1, ".", statement, (SIMPLE, RISING, HABITUAL + NOT_NOW + WANTED)),
    "habit?": Kind(1, "?", question, (SIMPLE, LIVING, HABITUAL_ASKED)),
    "not doing": Kind(4, ".", statement, (PEOPLE, DENIALS, DENIED)),
    "not doing, pronoun": Kind(3, ".", statement, (PRONOUNS, DENIALS, DENIED)),
    "not meeting": Kind(2, ".", statement, (GROWNUPS, NOT_MEETING_FAMILY, DENIED)),
    "doing?": Kind(3, "?", question, (PEOPLE, DEEDS, FINAL)),
    "doing, pronoun?": Kind(4, "?", question, (PRONOUNS, DEEDS, FINAL)),
    "happening?": Kind(1, "?", question, (SIMPLE, HAPPENING, OVER)),
    "why?": Kind(2, "?", why, (SIMPLE, DEEDS, EXPLICABLE)),
    "that": Kind(5, ".", that, (SPEAKERS, OPINIONS, FAMILY, DEEDS)),
    "because": Kind(3, ".", because, (
        SPEAKERS, MOODS, FAMILY, DEEDS, OVER_OR_COMING, EITHER,
    )),
    "because, happening": Kind(1, ".", because, (
        SPEAKERS, MOODS, FAMILY, HAPPENING, OVER, EITHER,
    )),
    "if": Kind(3, ".", provided, (
        conditions(PLAIN_FAMILY, FATES), ANYONE, SWITCHING + MOVING, ON_A_CONDITION, EITHER,
    )),
    "if, weather": Kind(1, ".", provided, (
        conditions([WEATHER], SKIES), ANYONE, SWITCHING + MOVING, ON_A_CONDITION, EITHER,
    )),
    "who": Kind(3, ".", who, (HEADS, DEEDS, FINAL, TRAITS)),
    "whom": Kind(2, ".", whom, (HEADS, FAMILY + PRONOUNS, MET, OVER_OR_COMING, TRAITS)),
    "which": Kind(3, ".", which, (qualities("the the+"), PEOPLE + PRONOUNS, TRADED, OVER)),
    "counting": Kind(3, ".", counting, (SIMPLE, GOT, FEW, MANY, NOT_NOW)),
    "numbered": Kind(2, ".", statement, (SIMPLE, NUMBERED, FINAL)),
    "age": Kind(2, ".", described, (ages(), BIRTHDAYS)),
    "hour": Kind(1, ".", statement, (ANYONE, MEETING_FAMILY, AT_AN_HOUR)),
    "hour, coming": Kind(1, ".", statement, (SIMPLE, RISING + ARRIVING, AT_AN_HOUR)),
    "date": Kind(1, ".", statement, (ANYONE, MEETING_FAMILY, ON_A_DATE)),
    "date, coming": Kind(1, ".", statement, (SIMPLE, ARRIVING + TRAVELING, ON_A_DATE)),
}  # fmt: skip
