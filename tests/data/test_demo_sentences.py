"""Sentences of the demo by their derivations, found by a slow parser, trial and error.

The German here was written by hand, not by the grammar.
"""

import re
from functools import cache
from itertools import product

import pytest

from data.demo.clauses import Predicate, Setting
from data.demo.kinds import KINDS
from data.demo.phrases import Phrase
from data.demo.verbs import Verb

# One sentence of every kind at least; all of them were checked by hand.
EXAMPLES = """
I am a student.
Ich bin ein Student.
She is a student.
Sie ist eine Studentin.
My sisters are not good doctors.
Meine Schwestern sind keine guten Ärztinnen.
Are you a teacher now?
Bist du jetzt ein Lehrer?
The blue dress was very expensive.
Das blaue Kleid war sehr teuer.
Are these fresh apples small?
Sind diese frischen Äpfel klein?
I am not tired today.
Ich bin heute nicht müde.
An old neighbor has a red car.
Ein alter Nachbar hat ein rotes Auto.
My father does not need any fresh bread.
Mein Vater braucht kein frisches Brot.
The guests do not like hot tea.
Die Gäste mögen keinen heißen Tee.
Our doctor lives in a small apartment.
Unser Arzt wohnt in einer kleinen Wohnung.
I know the young student.
Ich kenne den jungen Studenten.
This woman is drinking cold water now.
Diese Frau trinkt jetzt kaltes Wasser.
At the moment my son is writing a letter.
Im Moment schreibt mein Sohn einen Brief.
Tomorrow we must sell the expensive bicycle.
Morgen müssen wir das teure Fahrrad verkaufen.
You read the book yesterday.
Du hast gestern das Buch gelesen.
My aunt lost her old key last week.
Meine Tante hat letzte Woche ihren alten Schlüssel verloren.
Yesterday I forgot this heavy suitcase.
Gestern habe ich diesen schweren Koffer vergessen.
The cook is opening the window at the moment.
Der Koch macht im Moment das Fenster auf.
They want to turn on my radio today.
Sie wollen heute mein Radio anmachen.
The teacher helped my little brother yesterday.
Der Lehrer hat gestern meinem kleinen Bruder geholfen.
Your colleague is inviting the nice children now.
Dein Kollege lädt jetzt die netten Kinder ein.
We will dance with our old friends next week.
Wir werden nächste Woche mit unseren alten Freunden tanzen.
The tall man is calling me now.
Der große Mann ruft mich jetzt an.
My grandmother can help them tomorrow.
Meine Großmutter kann ihnen morgen helfen.
A friendly guest gave her daughter a flower yesterday.
Ein freundlicher Gast hat ihrer Tochter gestern eine Blume gegeben.
His mother will tell the children a long story this evening.
Seine Mutter wird den Kindern heute Abend eine lange Geschichte erzählen.
I should send my uncle this letter today.
Ich sollte meinem Onkel heute diesen Brief schicken.
The girls went to the park yesterday.
Die Mädchen sind gestern in den Park gegangen.
He is running to the station now.
Er läuft jetzt zum Bahnhof.
The engineers always drink hot coffee.
Die Ingenieure trinken immer heißen Kaffee.
Every day she gets up early.
Jeden Tag steht sie früh auf.
We often read the new newspaper.
Wir lesen oft die neue Zeitung.
Does your sister often go to the theater?
Geht deine Schwester oft ins Theater?
My brother did not close the red door yesterday.
Mein Bruder hat die rote Tür gestern nicht zugemacht.
The doctor cannot eat any eggs today.
Der Arzt kann heute keine Eier essen.
I do not want to work at the office tomorrow.
Ich will morgen nicht im Büro arbeiten.
This guest is not looking for our son now.
Dieser Gast sucht unseren Sohn jetzt nicht.
Did the young man repair her lamp this morning?
Hat der junge Mann heute Morgen ihre Lampe repariert?
Are you watching TV now?
Siehst du jetzt fern?
Did your friend find the letters last week?
Hat dein Freund letzte Woche die Briefe gefunden?
Why did he travel to Vienna last week?
Warum ist er letzte Woche nach Wien gereist?
I know that my mother is closing the window now.
Ich weiß, dass meine Mutter jetzt das Fenster zumacht.
The student says that his father must buy a new chair tomorrow.
Der Student sagt, dass sein Vater morgen einen neuen Stuhl kaufen muss.
The woman is sad because her son will travel to Berlin tomorrow.
Die Frau ist traurig, weil ihr Sohn morgen nach Berlin reisen wird.
Because my daughter found the key yesterday, I am very happy.
Weil meine Tochter gestern den Schlüssel gefunden hat, bin ich sehr glücklich.
If the weather is good tomorrow, we will go to the park.
Wenn das Wetter morgen gut ist, werden wir in den Park gehen.
You can turn off the lamp if my brother arrives in Berlin today.
Du kannst die Lampe ausmachen, wenn mein Bruder heute in Berlin ankommt.
The man who bought the red car yesterday is very nice.
Der Mann, der gestern das rote Auto gekauft hat, ist sehr nett.
These women who are closing the door now are clever.
Diese Frauen, die jetzt die Tür zumachen, sind klug.
The neighbors whom my sister helped yesterday are really nice.
Die Nachbarn, denen meine Schwester gestern geholfen hat, sind wirklich nett.
The doctor whom we will visit tomorrow is famous.
Der Arzt, den wir morgen besuchen werden, ist berühmt.
The old picture that the student sold yesterday is quite small.
Das alte Bild, das der Student gestern verkauft hat, ist ziemlich klein.
She bought one apple and twenty-one eggs yesterday.
Sie hat gestern einen Apfel und einundzwanzig Eier gekauft.
The woman is waiting in room one now.
Die Frau wartet jetzt in Zimmer eins.
You must read page sixty-seven today.
Du musst heute Seite siebenundsechzig lesen.
My son turns one year old on the third of May.
Mein Sohn wird am dritten Mai ein Jahr alt.
On Monday at one o'clock the teacher will meet my father.
Am Montag um ein Uhr wird der Lehrer meinen Vater treffen.
I got up early on Sunday at twelve o'clock.
Ich bin am Sonntag um zwölf Uhr früh aufgestanden.
On the thirtieth of June the engineers arrived in Munich.
Am dreißigsten Juni sind die Ingenieure in München angekommen.
We picked up your aunt on the seventh of March.
Wir haben am siebten März deine Tante abgeholt.
""".strip().splitlines()
UNSAYABLE = (
    "The teacher are reading the book now.",
    "The teacher read the book.",
    "He must not wash the car today.",
    "The table is eating an apple now.",
    "The old man whom we help is old.",
)


def _alternatives(item) -> list[set[str]]:
    """What English words a choice may bring into the sentence: all those of one of these sets."""
    match item:
        case Verb():
            forms = {*item.present, *item.past, item.base, item.ing}
            return [{form, *item.particle.lower().split()} for form in forms]
        case Predicate():
            tail = set(item.english.lower().split())
            return [tail | forms for forms in _alternatives(item.verb)]
        case Phrase():
            return [set(words.lower().split()) for words in (item.english, item.english_object)]
        case Setting():
            return [set(item.english.lower().split())]
        case (str(english), str()):
            return [set(english.replace(",", "").lower().split())]
        case tuple():
            return [set().union(*sets) for sets in product(*map(_alternatives, item))]
    return [set()]


BITS: dict[str, int] = {}


def _mask(words: set[str]) -> int:
    return sum(1 << BITS.setdefault(word, len(BITS)) for word in words)


@cache
def _masks(slot: int) -> list[tuple]:
    slots = {id(slot): slot for kind in KINDS.values() for slot in kind.slots}
    return [(_mask(words), item) for item in slots[slot] for words in _alternatives(item)]


def _derivations(sentence: str) -> list[tuple[str, str]]:
    """Return the kind and the German of every derivation of an English sentence."""
    absent = ~_mask(set(re.sub(r"[.,?]", "", sentence).lower().split()))

    @cache
    def fitting(slot: int) -> list:
        return list(dict.fromkeys(item for mask, item in _masks(slot) if not mask & absent))

    found = []
    for name, kind in KINDS.items():
        slots = sorted(kind.slots, key=len)  # so that most kinds are out soon
        if kind.mark != sentence[-1] or not all(fitting(id(slot)) for slot in slots):
            continue
        for choices in product(*(fitting(id(slot)) for slot in kind.slots)):
            english, german = kind.say(*choices)
            if english[0].upper() + english[1:] + kind.mark == sentence:
                found.append((name, german[0].upper() + german[1:] + kind.mark))
    return found


def test_examples_have_one_derivation_each_and_the_german_written_by_hand():
    kinds = set()
    for english, german in zip(EXAMPLES[::2], EXAMPLES[1::2], strict=True):
        found = _derivations(english)
        assert [said for _, said in found] == [german], english
        kinds.add(found[0][0])
    assert kinds == set(KINDS)


@pytest.mark.parametrize("english", UNSAYABLE)
def test_what_is_wrong_has_no_derivation(english):
    assert _derivations(english) == []
