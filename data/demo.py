"""The built-in demo corpus: sentence pairs out of a small English-German grammar, no download.

A sentence is a derivation: a kind of clause and one choice in each of its slots, said in both
languages. A number in mixed radix names the choices, so any sentence is computed from its index.
A seeded bijection scatters the indices, so a corpus has no repeated sentence within a split or
across splits. The words and their forms are in data/demo_lexicon.py.
"""

import hashlib
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import NamedTuple

from data import demo_lexicon as lexicon
from data.corpus import DataError, Pair
from data.demo_lexicon import (
    DIMENSION,
    MODALS,
    PLURAL,
    PRONOUNS,
    SINGULAR,
    THINGS,
    VERBS,
    Noun,
    Phrase,
    Verb,
    english_number,
    german_number,
)

# What is done to which things.
ACTIONS = {
    "buy": "coat dress hat lamp chair bicycle car book",
    "sell": "car bicycle table bed picture",
    "wash": "shirt car jacket bicycle",
    "repair": "car bicycle lamp radio chair",
    "write": "letter story",
    "read": "book newspaper letter story",
    "eat": "apple pear egg cake bread cheese",
    "drink": "milk tea coffee water",
}
SEPARABLE = {
    "open": "door window bag suitcase",
    "close": "door window bag suitcase",
    "turn on": "lamp radio computer",
    "turn off": "lamp radio computer",
    "bring": "cake apple flower picture bread cheese",
}
GIFTS = {
    "give": "book key flower picture",
    "show": "book letter picture house",
    "send": "letter book flower picture",
    "lend": "book bicycle car bag",
    "tell": "story",
}
STATES = {
    "have": "car bicycle bag suitcase house apartment radio computer book",
    "need": "coat jacket key lamp table bed bread milk water computer",
}
LIKES = {"like": "apple pear cake tea coffee cheese dress hat flower picture"}
EVENTS = {
    "find": "key bag letter hat",
    "lose": "key bag hat jacket",
    "forget": "bag key suitcase book",
}
HABITS = {
    "eat": "apple pear egg cake bread cheese",
    "drink": "milk tea coffee water",
    "read": "book newspaper letter story",
}
# What is done with people, and the German case or preposition that it governs.
MEETINGS = {
    **dict.fromkeys(("visit", "meet", "call", "invite", "look for", "pick up"), "accusative"),
    **dict.fromkeys(("help", "thank", "answer"), "dative"),
    **dict.fromkeys(("dance", "talk"), "mit"),
}
MOVES = {"at": "sleep,work,wait,sing,dance,stay,watch TV", "to": "go,run", "from": "come"}
DEGREES = (("", ""), ("very", "sehr"), ("quite", "ziemlich"), ("really", "wirklich"))
TIMES = {
    "now": {"now": "jetzt", "at the moment": "im Moment", "right now": "gerade"},
    "past": {"yesterday": "gestern", "last week": "letzte Woche", "this morning": "heute Morgen"},
    "will": {"tomorrow": "morgen", "next week": "nächste Woche", "this evening": "heute Abend"},
    **dict.fromkeys(("can", "must", "should", "want"), {"today": "heute", "tomorrow": "morgen"}),
}


class Predicate(NamedTuple):
    """A verb and what it governs; in German `early` stands before the adverb, `late` after it."""

    verb: Verb
    english: str
    early: str
    late: str
    negative: bool = False


class Setting(NamedTuple):
    """A tense (simple, now, past or a modal), an adverb, and its place in the English sentence."""

    tense: str
    english: str
    german: str
    place: str


def _join(*words: str) -> str:
    return " ".join(filter(None, words))


def _english_verb(verb: Verb, tense: str, person: int, split: bool) -> tuple[str, str]:
    """Return the auxiliary, which `split` (a question, a negation) asks for, and the rest."""
    do = "does" if person == SINGULAR else "do"
    if tense == "want":
        if split:
            return do, f"want to {verb.base}"
        return "", f"{MODALS['want'][person == SINGULAR]} {verb.base}"
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


def english(subject: Phrase, predicate: Predicate, setting: Setting, question=False) -> str:
    """Return an English clause."""
    verb, tail, _, _, negative = predicate
    tense, adverb, _, place = setting
    auxiliary, rest = _english_verb(verb, tense, subject.person, question or negative)
    before = auxiliary if question else ""
    after = "" if question else auxiliary
    if negative:
        after = "cannot" if after == "can" else _join(after, "not")
    front, middle, end = (adverb if place == where else "" for where in ("front", "middle", "end"))
    return _join(front, before, subject.english, after, middle, rest, verb.particle, tail, end)


def german(subject: Phrase, predicate: Predicate, setting: Setting, order: str = "main") -> str:
    """Return a German clause; `order` puts its finite verb: main (second), first or last."""
    verb, _, early, late, _ = predicate
    tense, _, adverb, place = setting
    person, name = subject.person, subject.nominative
    if tense in MODALS:
        finite, closing = MODALS[tense][2][person], verb.infinitive
    elif tense == "past" and verb.preterite:
        finite, closing = verb.preterite[person], ""
    elif tense == "past":
        finite, closing = verb.auxiliary[person], verb.participle
    else:
        finite, closing = verb.finite[person], verb.prefix
    if order == "last":
        joined = closing + finite if closing == verb.prefix else f"{closing} {finite}"
        return _join(name, early, adverb, late, joined)
    if order == "first":
        return _join(finite, name, early, adverb, late, closing)
    if place == "front":
        return _join(adverb, finite, name, early, late, closing)
    return _join(name, finite, early, adverb, late, closing)


# The kinds of sentences: functions of their slots to (English, German).


def statement(subject, predicate, setting):
    """My sister opened the door yesterday."""
    return english(subject, predicate, setting), german(subject, predicate, setting)


def question(subject, predicate, setting):
    """Did my sister open the door yesterday?"""
    return english(subject, predicate, setting, True), german(subject, predicate, setting, "first")


def why(subject, predicate, setting):
    """Why did my sister open the door yesterday?"""
    asked = question(subject, predicate, setting)
    return f"why {asked[0]}", f"warum {asked[1]}"


def described(pair, setting):
    """The red coat is very expensive."""
    return statement(*pair, setting)


def inquired(pair, setting):
    """Is the red coat very expensive?"""
    return question(*pair, setting)


def giving(subject, person, gift, setting):
    """The teacher gave my sister a book yesterday."""
    verb, thing = gift
    objects = f"{person.english_object} {thing.english_object}"
    given = Predicate(verb, objects, person.dative, thing.accusative)
    return statement(subject, given, setting)


def that(speaker, opinion, subject, predicate):
    """The teacher knows that my sister opened the door yesterday."""
    verb, setting = opinion
    said = statement(speaker, Predicate(verb, "", "", ""), PRESENT)
    clause = german(subject, predicate, setting, "last")
    return f"{said[0]} that {english(subject, predicate, setting)}", f"{said[1]}, dass {clause}"


def because(feeler, feeling, subject, predicate, setting, fronted):
    """The teacher is sad because my sister lost the key yesterday."""
    reason = f"because {english(subject, predicate, setting)}"
    grund = f"weil {german(subject, predicate, setting, 'last')}"
    main = english(feeler, feeling, PRESENT)
    if fronted:
        return f"{reason}, {main}", f"{grund}, {german(feeler, feeling, PRESENT, 'first')}"
    return f"{main} {reason}", f"{german(feeler, feeling, PRESENT)}, {grund}"


def provided(condition, subject, predicate, setting, fronted):
    """If my brother has time, the teacher will go to the park."""
    main = english(subject, predicate, setting)
    if_english, if_german = condition
    if fronted:
        order_first = german(subject, predicate, setting, "first")
        return f"{if_english}, {main}", f"{if_german}, {order_first}"
    return f"{main} {if_english}", f"{german(subject, predicate, setting)}, {if_german}"


def _relative(head: Phrase, case: int) -> str:
    column = 3 if head.person == PLURAL else "mfn".index(head.gender)
    if case == lexicon.DATIVE and column == 3:
        return "denen"  # where the article is `den`
    return lexicon.determiner("der", case, column)[0]


def _qualify(head: Phrase, clause: str, satz: str) -> Phrase:
    return head._replace(
        english=f"{head.english} {clause}", nominative=f"{head.nominative}, {satz},"
    )


def who(head, predicate, setting, quality):
    """The man who bought the red car yesterday is very nice."""
    relative = head._replace(english="who", nominative=_relative(head, lexicon.NOMINATIVE))
    clause = english(relative, predicate, setting)
    head = _qualify(head, clause, german(relative, predicate, setting, "last"))
    return statement(head, quality, PRESENT)


def whom(head, subject, verb_and_case, setting, quality):
    """The man whom my sister helped yesterday is very nice."""
    verb, case = verb_and_case
    met = Predicate(verb, "", "", "")
    satz = f"{_relative(head, case)} {german(subject, met, setting, 'last')}"
    head = _qualify(head, f"whom {english(subject, met, setting)}", satz)
    return statement(head, quality, PRESENT)


def which(pair, subject, verb, setting):
    """The coat that my sister bought yesterday is very expensive."""
    head, quality = pair
    done = Predicate(verb, "", "", "")
    satz = f"{_relative(head, lexicon.ACCUSATIVE)} {german(subject, done, setting, 'last')}"
    head = _qualify(head, f"that {english(subject, done, setting)}", satz)
    return statement(head, quality, PRESENT)


def counting(subject, verb, first, second, setting):
    """My sister bought twenty-one apples and one egg yesterday."""
    both, beide = f"{first[0]} and {second[0]}", f"{first[1]} und {second[1]}"
    return statement(subject, Predicate(verb, both, "", beide), setting)


# What stands in the slots: first the subjects ...


def _fits(code: str, noun: Noun) -> bool:
    uncounted = noun.english_plural == "-"
    return code != "a" and code[-1] != "+" if uncounted else code not in ("-", "any")


def _phrases(codes: str, nouns: Iterable[Noun], negative=False, plain=False) -> tuple[Phrase, ...]:
    """Return the nouns with each determiner, without and (unless plain) with adjectives."""
    return tuple(
        lexicon.phrase(code, adjective, noun, negative)
        for noun, code in product(nouns, codes.split())
        for adjective in ("", *noun.adjectives)
        if _fits(code, noun) and not (plain and adjective) and (adjective or code[0] != "-")
    )


def _things(names: str, codes: str, negative=False) -> tuple[Phrase, ...]:
    return _phrases(codes, [THINGS[name] for name in names.split()], negative)


def _grownups(codes: str, role_codes: str, plain=False) -> tuple[Phrase, ...]:
    strangers = _phrases(codes, lexicon.STRANGERS.values(), plain=plain)
    return strangers + _phrases(role_codes, lexicon.ROLES.values(), plain=plain)


def _family(codes: str, plain=False) -> tuple[Phrase, ...]:
    elders = _phrases(codes, lexicon.ELDERS.values(), plain=plain)
    return elders + _phrases(f"{codes} my+ his+ our+", lexicon.SIBLINGS.values(), plain=plain)


GROWNUPS = _grownups("the the+ a this these+", "the the+ a this our")
PLAIN_GROWNUPS = _grownups("the the+ a this these+", "the the+ a our", plain=True)
FAMILY = _family("my your his her our")
PLAIN_FAMILY = _family("my your his her our", plain=True)
CHILDREN = _phrases("the the+ a this these+", lexicon.CHILDREN.values())
PEOPLE = GROWNUPS + FAMILY
SIMPLE = PRONOUNS + PLAIN_GROWNUPS + PLAIN_FAMILY
HEADS = _grownups("the the+ this these+", "the the+ this these+")  # of relative clauses

# ... then the predicates ...


def _predicate(verb: str, tail: str, words: str, negative=False, part="object") -> Predicate:
    """Return a predicate with German `words`: an object, a pronoun or a complement.

    `nicht` follows an object and precedes a complement, and `kein` needs none.
    """
    if negative and not words.startswith("kein"):
        if part == "object":
            return Predicate(VERBS[verb], tail, words, "nicht", negative)
        words = _join("nicht", words)
    early, late = (words, "") if part == "pronoun" else ("", words)
    return Predicate(VERBS[verb], tail, early, late, negative)


def _acts(table: dict[str, str], codes: str, negative=False) -> tuple[Predicate, ...]:
    """Return what is done to things, out of a table of verbs and nouns."""
    return tuple(
        _predicate(verb, thing.english_object, thing.accusative, negative)
        for verb, names in table.items()
        for thing in _things(names, codes, negative)
    )


def _meetings(people: Iterable[Phrase], negative=False, part="object") -> tuple[Predicate, ...]:
    """Return what is done with people."""
    found = []
    for (verb, government), person in product(MEETINGS.items(), people):
        words = person.accusative if government == "accusative" else person.dative
        tail = person.english_object
        if government == "mit":
            found.append(_predicate(verb, f"with {tail}", f"mit {words}", negative, "complement"))
        elif words and not (part == "pronoun" and verb == "pick up"):  # it picks me up
            found.append(_predicate(verb, tail, words, negative, part))
    return tuple(found)


def _moves(table: dict[str, str], negative=False) -> tuple[Predicate, ...]:
    """Return what is done at places and on the way to and from them."""
    return tuple(
        _predicate(verb, *place[way], negative, "complement")
        for way, verbs in table.items()
        for verb, place in product(verbs.split(","), lexicon.PLACES.values())
    )


def _cities(verb: str, to: str, nach: str) -> tuple[Predicate, ...]:
    cities = lexicon.CITIES.items()
    return tuple(_predicate(verb, f"{to} {city}", f"{nach} {stadt}") for city, stadt in cities)


def _being(adjectives: Iterable[str], negative=False) -> tuple[Predicate, ...]:
    """Return `is (very) tired` and the like; colors have no degree."""
    found = []
    for adjective in adjectives:
        for more, mehr in DEGREES[: 1 if negative or DIMENSION[adjective] == "color" else None]:
            words = _join(mehr, lexicon.GERMAN_ADJECTIVE[adjective])
            found.append(_predicate("be", _join(more, adjective), words, negative, "complement"))
    return tuple(found)


ANY, NO = "the the+ a - -+ this these+ my his her", "the the+ a any any+ this my his her"
OWN = "the the+ this these+ my your his her our"
DOING = _acts(ACTIONS, ANY)
SWITCHING = _acts(SEPARABLE, OWN)
HAPPENING = _acts(EVENTS, OWN)
NOT_DOING = _acts(ACTIONS, NO, True) + _acts(SEPARABLE, NO, True)
HOMES = tuple(
    _predicate("live", f"in {home.english_object}", f"in {home.dative}")
    for home in _things("house apartment", "a the this my our")
) + _cities("live", "in", "in")
HAVING = _acts(STATES, ANY) + _acts(STATES, NO, True)
HAVING += _acts(LIKES, f"- -+ {OWN}") + _acts(LIKES, f"- -+ {OWN}", True)
TRAVELING, ARRIVING = _cities("travel", "to", "nach"), _cities("arrive", "in", "in")
RESTING = (_predicate("watch TV", "", ""),)
MOVING = _moves(MOVES) + TRAVELING + RESTING
NOT_MOVING = _moves(MOVES, True) + (_predicate("watch TV", "", "", True),)
RISING = (_predicate("get up", "early", "früh"), _predicate("get up", "late", "spät"))
LIVING = _acts(HABITS, "a - -+") + _acts({"read": "newspaper"}, "the")
LIVING += _moves({"at": "work,wait,watch TV", "to": "go"})
FEELING = ("tired", "sick", "hungry", "happy", "sad")
FEELINGS = _being(FEELING) + _being(FEELING, True)

# ... and the settings.


def _settings(places: str, times: dict[str, dict[str, str]]) -> tuple[Setting, ...]:
    return tuple(
        Setting(tense, *time, place)
        for place in places.split()
        for tense, adverbs in times.items()
        for time in adverbs.items()
    )


def _only(*tenses: str) -> dict[str, dict[str, str]]:
    return {tense: TIMES[tense] for tense in tenses}


PRESENT, PAST = Setting("simple", "", "", "end"), Setting("past", "", "", "end")
NOW = Setting("simple", "now", "jetzt", "end")
FINAL = _settings("end", TIMES)
ANYWHERE = FINAL + _settings("front", _only("now", "past", "will", "must"))
HAPPENED = _settings("end front", _only("past"))
NOT_NOW = HAPPENED + _settings("end front", _only("will"))
# Without `must`: `must not` is not `muss nicht`.
DENIED = NOT_NOW + _settings("end", _only("now", "can", "should", "want"))
HABITUAL = _settings(
    "end front", {"simple": {"every day": "jeden Tag", "every week": "jede Woche"}}
)
HABITUAL += _settings(
    "middle", {"simple": {"often": "oft", "sometimes": "manchmal", "always": "immer"}}
)
HOURS = {
    f"on {day} at {english_number(hour)} o'clock": f"am {tag} um {stunde} Uhr"
    for day, tag in lexicon.WEEKDAYS.items()
    for hour in range(1, 13)
    for stunde in ["ein" if hour == 1 else german_number(hour)]
}
DATES = {
    f"on the {lexicon.english_ordinal(day)} of {month}": f"am {lexicon.german_ordinal(day)} {monat}"
    for (month, monat), days in lexicon.MONTHS.items()
    for day in range(1, days + 1)
}
SCHEDULED = {
    "hour": _settings("end front", dict.fromkeys(("past", "will", "must"), HOURS)),
    "date": _settings("end front", dict.fromkeys(("past", "will", "must"), DATES)),
    "age": _settings("end front", dict.fromkeys(("simple", "past"), DATES)),
}

# Slots whose choices depend on one another.


def _counts(names: str) -> tuple[tuple[str, str], ...]:
    """Return `one egg`, `ein Ei` to `ninety-nine eggs`, `neunundneunzig Eier`, as objects."""
    found = []
    for noun in (THINGS[name] for name in names.split()):
        ein = lexicon.decline("ein", "", noun, lexicon.ACCUSATIVE, False)
        found.append((f"one {noun.english}", ein))
        for number in range(2, 100):
            zahl = f"{german_number(number)} {noun.german_plural}"
            found.append((f"{english_number(number)} {noun.english_plural}", zahl))
    return tuple(found)


def _numbered() -> tuple[Predicate, ...]:
    """Return what is done in room one to ninety-nine and with as many pages."""
    return tuple(
        _predicate(verb, f"{where} {english_number(n)}", f"{wo} {german_number(n)}")
        for verb, where, wo in (
            ("sleep", "in room", "in Zimmer"),
            ("work", "in room", "in Zimmer"),
            ("wait", "in room", "in Zimmer"),
            ("read", "page", "Seite"),
        )
        for n in range(1, 100)
    )


def _ages() -> tuple[tuple[Phrase, Predicate], ...]:
    """Return who turns how old."""
    own, the = "my your his her our", "the this"
    small = {name: lexicon.SIBLINGS[name] for name in ("son", "daughter")}
    large = {name: lexicon.SIBLINGS[name] for name in ("sister", "brother", "friend", "colleague")}
    young = _phrases(the, lexicon.CHILDREN.values(), plain=True)
    young += _phrases(own, small.values(), plain=True)
    older = PRONOUNS[:4] + _grownups(the, "the our", plain=True)
    older += _phrases(own, large.values(), plain=True)
    found = []
    for subject, age in (*product(young, range(1, 13)), *product(older, range(18, 61))):
        old, alt = ("year", "ein Jahr") if age == 1 else ("years", f"{german_number(age)} Jahre")
        turning = _predicate("turn", f"{english_number(age)} {old} old", f"{alt} alt")
        found.append((subject, turning))
    return tuple(found)


def _professions() -> tuple[tuple[Phrase, Predicate], ...]:
    """Return who is (not) what; the profession agrees with the subject: `Lehrerin`."""
    subjects = PRONOUNS + _grownups("the the+ this these+", "") + PLAIN_FAMILY
    adjectives = ("", "good", "clever", "famous")
    found = []
    for who_is, name, *rest in product(subjects, lexicon.FEMININES, adjectives, (False, True)):
        adjective, negative = rest
        several = who_is.person == PLURAL
        if several and not adjective and who_is in PRONOUNS:
            continue  # "We are students." is too short
        noun = (lexicon.FEMININES if who_is.gender == "f" else lexicon.ROLES)[name]
        role = lexicon.phrase("-+" if several else "a", adjective, noun, negative)
        tail, words = role.english_object, role.nominative
        found.append((who_is, _predicate("be", tail, words, negative, "complement")))
    return tuple(found)


def _qualities(codes: str) -> tuple[tuple[Phrase, Predicate], ...]:
    """Return what things are like; two adjectives of one dimension would contradict each other."""
    found = []
    for noun, code in product(THINGS.values(), codes.split()):
        for adjective in ("", *noun.adjectives) if _fits(code, noun) else ():
            said = DIMENSION.get(adjective)
            others = [other for other in noun.adjectives if DIMENSION[other] != said]
            found += product([lexicon.phrase(code, adjective, noun)], _being(others))
    return tuple(found)


def _conditions(subjects, predicates) -> tuple[tuple[str, str], ...]:
    """Return `if my brother has time today`, `wenn mein Bruder heute Zeit hat`."""
    times = _settings("end", {"simple": {"today": "heute", "tomorrow": "morgen"}})
    clauses = product(subjects, predicates, times)
    return tuple((f"if {english(*c)}", f"wenn {german(*c, 'last')}") for c in clauses)


# The kinds of sentences, with their weights; a kind must have room for its share of the corpus.


class Kind(NamedTuple):
    """A kind of sentence: its share, its last mark, its function and the choices of its slots."""

    share: int
    mark: str
    say: Callable[..., tuple[str, str]]
    slots: tuple[Sequence, ...]

    @property
    def count(self) -> int:
        """How many sentences there are of this kind."""
        return math.prod(map(len, self.slots))

    def sentence(self, number: int) -> tuple[str, str]:
        """Return the number-th sentence in English and in German."""
        choices = []
        for slot in self.slots:
            number, digit = divmod(number, len(slot))
            choices.append(slot[digit])
        return tuple(text[0].upper() + text[1:] + self.mark for text in self.say(*choices))


def _kinds() -> dict[str, Kind]:
    """Return all kinds of sentences by name; the same deed has more weight with noun subjects."""
    either, anyone = (False, True), PRONOUNS + GROWNUPS
    others = GROWNUPS + CHILDREN
    deeds, denials = DOING + SWITCHING + MOVING, NOT_DOING + NOT_MOVING
    wanted = _settings("end", _only("must", "want"))
    over = _settings("end", _only("past"))
    over_or_coming = _settings("end", _only("past", "will"))
    explicable = _settings("end", _only("now", "past", "will", "must", "want"))
    habits_in_place = tuple(setting for setting in HABITUAL if setting.place != "front")
    felt = (NOW, Setting("simple", "today", "heute", "end"), *HAPPENED)
    willing = tuple(Setting(tense, "", "", "end") for tense in ("will", "can", "must", "should"))
    professions, qualities = _professions(), _qualities("the the+ this these+ my your his her our")
    affirmed = tuple(pair for pair in professions if not pair[1].negative)
    traits = _being(("nice", "clever", "happy", "famous"))
    moods = _being(("happy", "sad", "angry", "surprised"))
    knowing = tuple(_predicate("know", one.english_object, one.accusative) for one in PEOPLE)
    weather = Phrase("the weather", "", "das Wetter", "", "", SINGULAR, "n")
    skies, fates = _being(("good", "cold", "beautiful")), _being(("sick", "tired")) + ARRIVING
    fates += (_predicate("call", "", ""), _predicate("have", "time", "Zeit"))
    opinions = (
        *product((VERBS[name] for name in ("know that", "think", "say")), FINAL),
        *product([VERBS["hope"]], _settings("end", _only("past", "will", "can"))),
    )
    traded = tuple(VERBS[name] for name in ("buy", "sell", "find", "look for"))
    cases = {"accusative": lexicon.ACCUSATIVE, "dative": lexicon.DATIVE}
    met = tuple((VERBS[verb], cases[case]) for verb, case in MEETINGS.items() if case in cases)
    gifts = tuple(
        (VERBS[verb], thing)
        for verb, names in GIFTS.items()
        for thing in _things(names, "the the+ a -+ this these+")
    )
    to_family, to_others = _meetings(FAMILY), _meetings(others)
    to_me = _meetings(PRONOUNS, part="pronoun")
    hours, dates = SCHEDULED["hour"], SCHEDULED["date"]
    few, many = _counts("apple chair book flower"), _counts("pear egg lamp hat")
    got = tuple(VERBS[name] for name in ("buy", "sell", "bring"))
    return {
        "profession": Kind(3, ".", described, (professions, (PRESENT, NOW, PAST))),
        "profession?": Kind(1, "?", inquired, (affirmed, (PRESENT, NOW, PAST))),
        "quality": Kind(4, ".", described, (qualities, (PRESENT, PAST))),
        "quality?": Kind(1, "?", inquired, (qualities, (PRESENT, PAST))),
        "feeling": Kind(3, ".", statement, (SIMPLE + CHILDREN, FEELINGS, felt)),
        "having": Kind(3, ".", statement, (PEOPLE, HAVING, (PRESENT,))),
        "having, pronoun": Kind(2, ".", statement, (PRONOUNS, HAVING + knowing, (PRESENT,))),
        "living": Kind(1, ".", statement, (SIMPLE, HOMES, (PRESENT,))),
        "doing": Kind(7, ".", statement, (PEOPLE, DOING, ANYWHERE)),
        "doing, pronoun": Kind(4, ".", statement, (PRONOUNS, DOING, ANYWHERE)),
        "happening": Kind(2, ".", statement, (PEOPLE, HAPPENING, HAPPENED)),
        "happening, pronoun": Kind(1, ".", statement, (PRONOUNS, HAPPENING, HAPPENED)),
        "switching": Kind(5, ".", statement, (PEOPLE, SWITCHING, ANYWHERE)),
        "switching, pronoun": Kind(3, ".", statement, (PRONOUNS, SWITCHING, ANYWHERE)),
        "meeting family": Kind(3, ".", statement, (GROWNUPS, to_family, ANYWHERE)),
        "meeting others": Kind(3, ".", statement, (FAMILY, to_others, ANYWHERE)),
        "meeting, pronoun": Kind(3, ".", statement, (PRONOUNS, to_family, ANYWHERE)),
        "meeting me": Kind(3, ".", statement, (PEOPLE, to_me, ANYWHERE)),
        "giving family": Kind(3, ".", giving, (GROWNUPS, FAMILY, gifts, ANYWHERE)),
        "giving others": Kind(2, ".", giving, (FAMILY, others, gifts, ANYWHERE)),
        "giving, pronoun": Kind(1, ".", giving, (PRONOUNS, FAMILY, gifts, ANYWHERE)),
        "moving": Kind(4, ".", statement, (PEOPLE + CHILDREN, MOVING, ANYWHERE)),
        "moving, pronoun": Kind(3, ".", statement, (PRONOUNS, MOVING, ANYWHERE)),
        "habit": Kind(3, ".", statement, (PEOPLE, LIVING, HABITUAL)),
        "habit, pronoun": Kind(1, ".", statement, (PRONOUNS, LIVING, HABITUAL)),
        "rising": Kind(1, ".", statement, (SIMPLE, RISING, HABITUAL + NOT_NOW + wanted)),
        "habit?": Kind(1, "?", question, (SIMPLE, LIVING, habits_in_place)),
        "not doing": Kind(4, ".", statement, (PEOPLE, denials, DENIED)),
        "not doing, pronoun": Kind(3, ".", statement, (PRONOUNS, denials, DENIED)),
        "not meeting": Kind(2, ".", statement, (GROWNUPS, _meetings(FAMILY, True), DENIED)),
        "doing?": Kind(3, "?", question, (PEOPLE, deeds, FINAL)),
        "doing, pronoun?": Kind(4, "?", question, (PRONOUNS, deeds, FINAL)),
        "happening?": Kind(1, "?", question, (SIMPLE, HAPPENING, over)),
        "why?": Kind(2, "?", why, (SIMPLE, deeds, explicable)),
        "that": Kind(5, ".", that, (PRONOUNS + PLAIN_GROWNUPS, opinions, FAMILY, deeds)),
        "because": Kind(3, ".", because, (
            PRONOUNS + PLAIN_GROWNUPS, moods, FAMILY, deeds, over_or_coming, either,
        )),
        "because, happening": Kind(1, ".", because, (
            PRONOUNS + PLAIN_GROWNUPS, moods, FAMILY, HAPPENING, over, either,
        )),
        "if": Kind(3, ".", provided, (
            _conditions(PLAIN_FAMILY, fates), anyone, SWITCHING + MOVING, willing, either,
        )),
        "if, weather": Kind(1, ".", provided, (
            _conditions((weather,), skies), anyone, SWITCHING + MOVING, willing, either,
        )),
        "who": Kind(3, ".", who, (HEADS, deeds, FINAL, traits)),
        "whom": Kind(2, ".", whom, (HEADS, FAMILY + PRONOUNS, met, over_or_coming, traits)),
        "which": Kind(3, ".", which, (_qualities("the the+"), PEOPLE + PRONOUNS, traded, over)),
        "counting": Kind(3, ".", counting, (SIMPLE, got, few, many, NOT_NOW)),
        "numbered": Kind(2, ".", statement, (SIMPLE, _numbered(), FINAL)),
        "age": Kind(2, ".", described, (_ages(), SCHEDULED["age"])),
        "hour": Kind(1, ".", statement, (anyone, to_family, hours)),
        "hour, coming": Kind(1, ".", statement, (SIMPLE, RISING + ARRIVING, hours)),
        "date": Kind(1, ".", statement, (anyone, to_family, dates)),
        "date, coming": Kind(1, ".", statement, (SIMPLE, ARRIVING + TRAVELING, dates)),
    }  # fmt: skip


KINDS = _kinds()


class Permutation:
    """A bijection of range(count) onto itself: a Feistel network over the next larger rectangle."""

    ROUNDS = 4

    def __init__(self, count: int, key: str) -> None:
        self.count = count
        self.rows = math.isqrt(count - 1) + 1
        self.columns = -(-count // self.rows)
        names = (f"{key}/{turn}".encode() for turn in range(2 * self.ROUNDS))
        digests = [int.from_bytes(hashlib.sha256(name).digest()[:8], "big") for name in names]
        self.keys = tuple(zip(digests[::2], digests[1::2], strict=True))

    def __call__(self, index: int) -> int:
        """Return the image of `index`; what falls outside the range walks on until it is inside."""
        while True:
            row, column = divmod(index, self.columns)
            for first, second in self.keys:
                row = (row + _mix(column ^ first)) % self.rows
                column = (column + _mix(row ^ second)) % self.columns
            index = row * self.columns + column
            if index < self.count:
                return index


def _mix(number: int) -> int:
    """Return 64 well mixed bits: the finalizer of SplitMix64 (Steele et al., 2014)."""
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    number = (number ^ number >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return number ^ number >> 31


SIZES = {"train": 200_000, "valid": 1_000, "test": 1_000}
# Every round of the corpus, sum-of-shares sentences long, gives each kind its share.
ROUND = tuple((name, turn) for name, kind in KINDS.items() for turn in range(kind.share))


class Demo:
    """A split of the demo corpus as a `Source` of pairs; every seed is another corpus.

    Splits of one seed share no sentence; those of different seeds may.
    """

    def __init__(
        self,
        split: str,
        seed: int = 0,
        source_language: str = "en",
        target_language: str = "de",
    ) -> None:
        """Open a split; raise DataError for one that the corpus lacks, or such a language."""
        if split not in SIZES:
            raise DataError(f"demo has no split {split!r}: choose one of {', '.join(SIZES)}")
        languages = (source_language, target_language)
        if languages not in (("en", "de"), ("de", "en")):
            raise DataError(
                f"demo cannot translate {source_language!r} to {target_language!r}: "
                "choose en and de, or de and en"
            )
        self.reverse = languages == ("de", "en")
        self.size = SIZES[split]
        self.start = sum(SIZES[name] for name in list(SIZES)[: list(SIZES).index(split)])
        self.order = Permutation(len(ROUND), f"{seed}/order")
        self.permutations = {
            name: Permutation(kind.count, f"{seed}/{name}") for name, kind in KINDS.items()
        }

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Pair:
        index = operator.index(index)
        if not 0 <= index < self.size:
            raise IndexError(f"demo pair {index} is not in 0 to {self.size - 1}")
        turn, place = divmod(self.start + index, len(ROUND))
        # Turned a little each round, or every other sentence would show half of the kinds.
        name, offset = ROUND[self.order((place + turn) % len(ROUND))]
        kind = KINDS[name]
        said = kind.sentence(self.permutations[name](turn * kind.share + offset))
        return Pair(*said[:: -1 if self.reverse else 1])
