"""Time: tenses with their adverbs, hours and dates."""

from data.demo.clauses import TimeFrame
from data.demo.numbers import english_number, english_ordinal, german_number, german_ordinal

TIMES = {
    "now": {"now": "jetzt", "at the moment": "im Moment", "right now": "gerade"},
    "past": {"yesterday": "gestern", "last week": "letzte Woche", "this morning": "heute Morgen"},
    "will": {"tomorrow": "morgen", "next week": "nächste Woche", "this evening": "heute Abend"},
    **dict.fromkeys(("can", "must", "should", "want"), {"today": "heute", "tomorrow": "morgen"}),
}
MONTHS = {  # and how many days they have
    ("January", "Januar"): 31, ("February", "Februar"): 29, ("March", "März"): 31,
    ("April", "April"): 30, ("May", "Mai"): 31, ("June", "Juni"): 30, ("July", "Juli"): 31,
    ("August", "August"): 31, ("September", "September"): 30, ("October", "Oktober"): 31,
    ("November", "November"): 30, ("December", "Dezember"): 31,
}  # fmt: skip
WEEKDAYS = dict(
    Monday="Montag", Tuesday="Dienstag", Wednesday="Mittwoch", Thursday="Donnerstag",
    Friday="Freitag", Saturday="Samstag", Sunday="Sonntag",
)  # fmt: skip
HOURS = {
    f"on {day} at {english_number(hour)} o'clock": f"am {tag} um {stunde} Uhr"
    for day, tag in WEEKDAYS.items()
    for hour in range(1, 13)
    for stunde in ["ein" if hour == 1 else german_number(hour)]
}
DATES = {
    f"on the {english_ordinal(day)} of {month}": f"am {german_ordinal(day)} {monat}"
    for (month, monat), days in MONTHS.items()
    for day in range(1, days + 1)
}


def settings(places: str, times: dict[str, dict[str, str]]) -> tuple[TimeFrame, ...]:
    """Return each tense with each of its adverbs in each of these places: front, middle, end."""
    return tuple(
        TimeFrame(tense, *time, place)
        for place in places.split()
        for tense, adverbs in times.items()
        for time in adverbs.items()
    )


def only(*tenses: str) -> dict[str, dict[str, str]]:
    """Return these tenses and their adverbs."""
    return {tense: TIMES[tense] for tense in tenses}


PRESENT, PAST = TimeFrame("simple", "", "", "end"), TimeFrame("past", "", "", "end")
NOW = TimeFrame("simple", "now", "jetzt", "end")
FINAL = settings("end", TIMES)
ANYWHERE = FINAL + settings("front", only("now", "past", "will", "must"))
HAPPENED = settings("end front", only("past"))
NOT_NOW = HAPPENED + settings("end front", only("will"))
# Without `must`: `must not` is not `muss nicht`.
DENIED = NOT_NOW + settings("end", only("now", "can", "should", "want"))
HABITUAL = settings("end front", {"simple": {"every day": "jeden Tag", "every week": "jede Woche"}})
HABITUAL += settings(
    "middle", {"simple": {"often": "oft", "sometimes": "manchmal", "always": "immer"}}
)
HABITUAL_ASKED = tuple(setting for setting in HABITUAL if setting.place != "front")
FELT = (NOW, TimeFrame("simple", "today", "heute", "end"), *HAPPENED)
WANTED = settings("end", only("must", "want"))
OVER = settings("end", only("past"))
OVER_OR_COMING = settings("end", only("past", "will"))
HOPED = settings("end", only("past", "will", "can"))
EXPLICABLE = settings("end", only("now", "past", "will", "must", "want"))
IN_A_CONDITION = settings("end", {"simple": {"today": "heute", "tomorrow": "morgen"}})
ON_A_CONDITION = tuple(
    TimeFrame(tense, "", "", "end") for tense in ("will", "can", "must", "should")
)
AT_AN_HOUR = settings("end front", dict.fromkeys(("past", "will", "must"), HOURS))
ON_A_DATE = settings("end front", dict.fromkeys(("past", "will", "must"), DATES))
BIRTHDAYS = settings("end front", dict.fromkeys(("simple", "past"), DATES))
