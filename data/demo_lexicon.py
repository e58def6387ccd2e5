"""The words of the demo corpus and how they inflect in English and German.

Tables come first, one word a line, then the few functions that put a word into its form. German
genders are m, f, n; cases are nominative, accusative and dative, in this order everywhere.
Every English word has one German word in its place, so that the translation is a function:
`you` is always `du`, `teacher` is `Lehrer` (but `Lehrerin` where a woman is said to be one).
"""

from typing import NamedTuple

NOMINATIVE, ACCUSATIVE, DATIVE = range(3)
SINGULAR, PLURAL = 2, 3  # as grammatical persons: 0 ich, 1 du, 2 er, 3 wir and sie


class Noun(NamedTuple):
    """A noun; `oblique` is the accusative and dative singular, which the weak masculines mark."""

    english: str
    english_plural: str
    german: str
    german_plural: str
    gender: str
    oblique: str
    adjectives: tuple[str, ...]


class Verb(NamedTuple):
    """A verb: finite forms are indexed by person; `particle` and `prefix` split off the verb."""

    base: str
    particle: str
    present: tuple[str, ...]
    past: tuple[str, ...]
    ing: str
    infinitive: str
    prefix: str
    finite: tuple[str, ...]
    participle: str
    auxiliary: tuple[str, ...]
    preterite: tuple[str, ...] = ()  # in place of the perfect, for sein


class Phrase(NamedTuple):
    """A noun phrase or pronoun in every form that a clause may ask for."""

    english: str
    english_object: str
    nominative: str
    accusative: str
    dative: str
    person: int
    gender: str


def _nouns(table: str) -> dict[str, Noun]:
    nouns = {}
    for line in table.strip().splitlines():
        english, plural, german, german_plural, gender, oblique, *adjectives = line.split()
        oblique = german if oblique == "-" else oblique
        nouns[english] = Noun(
            english, plural, german, german_plural, gender, oblique, tuple(adjectives)
        )
    return nouns


# English, plural, German, plural, gender, oblique singular (- if unmarked), fitting adjectives.
STRANGERS = _nouns("""
man       men        Mann       Männer      m -          young old tall friendly
woman     women      Frau       Frauen      f -          young old tall friendly
""")
ROLES = _nouns("""
teacher   teachers   Lehrer     Lehrer      m -          young old tall friendly
student   students   Student    Studenten   m Studenten  young tall friendly
doctor    doctors    Arzt       Ärzte       m -          young old friendly
engineer  engineers  Ingenieur  Ingenieure  m -          young old friendly
cook      cooks      Koch       Köche       m -          young old friendly
neighbor  neighbors  Nachbar    Nachbarn    m Nachbarn   young old tall friendly
guest     guests     Gast       Gäste       m -          young old friendly
""")
CHILDREN = _nouns("""
child     children   Kind       Kinder      n -          little clever nice
girl      girls      Mädchen    Mädchen     n -          little clever nice
boy       boys       Junge      Jungen      m Jungen     little clever nice
""")
ELDERS = _nouns("""
mother      -        Mutter       -         f -          nice clever
father      -        Vater        -         m -          nice clever
grandmother -        Großmutter   -         f -          old nice
aunt        -        Tante        -         f -          old nice
uncle       -        Onkel        -         m -          old nice
""")
SIBLINGS = _nouns("""
sister    sisters    Schwester  Schwestern  f -          little clever
brother   brothers   Bruder     Brüder      m -          little clever
daughter  daughters  Tochter    Töchter     f -          little young
son       sons       Sohn       Söhne       m -          little young
friend    friends    Freund     Freunde     m -          good old
colleague colleagues Kollege    Kollegen    m Kollegen   nice young
""")
THINGS = _nouns("""
book      books      Buch       Bücher      n -          new old interesting
newspaper newspapers Zeitung    Zeitungen   f -          new old interesting
letter    letters    Brief      Briefe      m -          long interesting
story     stories    Geschichte Geschichten f -          long new interesting
coat      coats      Mantel     Mäntel      m -          red blue new expensive
dress     dresses    Kleid      Kleider     n -          red blue new expensive
shirt     shirts     Hemd       Hemden      n -          red blue new cheap
jacket    jackets    Jacke      Jacken      f -          red blue old cheap
hat       hats       Hut        Hüte        m -          red old beautiful
table     tables     Tisch      Tische      m -          big new beautiful
chair     chairs     Stuhl      Stühle      m -          old new beautiful
bed       beds       Bett       Betten      n -          big old expensive
lamp      lamps      Lampe      Lampen      f -          small new beautiful
picture   pictures   Bild       Bilder      n -          small old beautiful
car       cars       Auto       Autos       n -          red old expensive
bicycle   bicycles   Fahrrad    Fahrräder   n -          blue new expensive
bag       bags       Tasche     Taschen     f -          heavy small old
suitcase  suitcases  Koffer     Koffer      m -          heavy big new
key       keys       Schlüssel  Schlüssel   m -          small old
flower    flowers    Blume      Blumen      f -          red beautiful
door      doors      Tür        Türen       f -          heavy old red
window    windows    Fenster    Fenster     n -          big old small
radio     radios     Radio      Radios      n -          cheap old small
computer  computers  Computer   Computer    m -          expensive new
apple     apples     Apfel      Äpfel       m -          red fresh small
pear      pears      Birne      Birnen      f -          big fresh
egg       eggs       Ei         Eier        n -          big fresh
cake      cakes      Kuchen     Kuchen      m -          big fresh good
house     houses     Haus       Häuser      n -          big old beautiful
apartment apartments Wohnung    Wohnungen   f -          small new expensive
milk      -          Milch      -           f -          cold fresh
tea       -          Tee        -           m -          hot good
coffee    -          Kaffee     -           m -          hot good
water     -          Wasser     -           n -          cold fresh
bread     -          Brot       -           n -          fresh good
cheese    -          Käse       -           m -          good expensive
""")
# What a woman is called where a sentence says that she is one.
FEMININES = _nouns("""
teacher   teachers   Lehrerin    Lehrerinnen    f -
student   students   Studentin   Studentinnen   f -
doctor    doctors    Ärztin      Ärztinnen      f -
engineer  engineers  Ingenieurin Ingenieurinnen f -
cook      cooks      Köchin      Köchinnen      f -
""")
# By dimension: two adjectives of one dimension would contradict each other in a sentence.
ADJECTIVES = {
    "age": {"new": "neu", "old": "alt", "young": "jung", "fresh": "frisch"},
    "size": {"big": "groß", "tall": "groß", "small": "klein", "little": "klein", "long": "lang"},
    "color": {"red": "rot", "blue": "blau"},
    "price": {"expensive": "teuer", "cheap": "billig"},
    "heat": {"cold": "kalt", "hot": "heiß"},
    "weight": {"heavy": "schwer"},
    "quality": {"good": "gut", "beautiful": "schön", "interesting": "interessant"},
    "character": {"friendly": "freundlich", "nice": "nett", "clever": "klug", "famous": "berühmt"},
    "mood": {"happy": "glücklich", "sad": "traurig", "angry": "wütend", "surprised": "überrascht"},
    "state": {"tired": "müde", "sick": "krank", "hungry": "hungrig"},
}
DIMENSION = {word: name for name, words in ADJECTIVES.items() for word in words}
GERMAN_ADJECTIVE = {word: german for words in ADJECTIVES.values() for word, german in words.items()}
STEM = {"teuer": "teur", "müde": "müd"}  # before an ending

# English name, forms (third person, -ing, past); German infinitive with its prefix, forms (du, er,
# past participle) and the auxiliary of the perfect unless it is haben.
_VERBS = """
answer    | answers answering answered    | antworten antwortest antwortet geantwortet
arrive    | arrives arriving arrived      | an+kommen kommst kommt gekommen sein
bring     | brings bringing brought       | mit+bringen bringst bringt gebracht
buy       | buys buying bought            | kaufen kaufst kauft gekauft
call      | calls calling called          | an+rufen rufst ruft gerufen
close     | closes closing closed         | zu+machen machst macht gemacht
come      | comes coming came             | kommen kommst kommt gekommen sein
dance     | dances dancing danced         | tanzen tanzt tanzt getanzt
drink     | drinks drinking drank         | trinken trinkst trinkt getrunken
eat       | eats eating ate               | essen isst isst gegessen
find      | finds finding found           | finden findest findet gefunden
forget    | forgets forgetting forgot     | vergessen vergisst vergisst vergessen
get up    | gets getting got              | auf+stehen stehst steht gestanden sein
give      | gives giving gave             | geben gibst gibt gegeben
go        | goes going went               | gehen gehst geht gegangen sein
have      | has having had                | haben hast hat gehabt
help      | helps helping helped          | helfen hilfst hilft geholfen
hope      | hopes hoping hoped            | hoffen hoffst hofft gehofft
invite    | invites inviting invited      | ein+laden lädst lädt geladen
know      | knows knowing knew            | kennen kennst kennt gekannt
know that | knows knowing knew            | wissen weißt weiß gewusst
lend      | lends lending lent            | leihen leihst leiht geliehen
like      | likes liking liked            | mögen magst mag gemocht
live      | lives living lived            | wohnen wohnst wohnt gewohnt
look for  | looks looking looked          | suchen suchst sucht gesucht
lose      | loses losing lost             | verlieren verlierst verliert verloren
meet      | meets meeting met             | treffen triffst trifft getroffen
need      | needs needing needed          | brauchen brauchst braucht gebraucht
open      | opens opening opened          | auf+machen machst macht gemacht
pick up   | picks picking picked          | ab+holen holst holt geholt
play      | plays playing played          | spielen spielst spielt gespielt
read      | reads reading read            | lesen liest liest gelesen
repair    | repairs repairing repaired    | reparieren reparierst repariert repariert
run       | runs running ran              | laufen läufst läuft gelaufen sein
say       | says saying said              | sagen sagst sagt gesagt
sell      | sells selling sold            | verkaufen verkaufst verkauft verkauft
send      | sends sending sent            | schicken schickst schickt geschickt
show      | shows showing showed          | zeigen zeigst zeigt gezeigt
sing      | sings singing sang            | singen singst singt gesungen
sleep     | sleeps sleeping slept         | schlafen schläfst schläft geschlafen
stay      | stays staying stayed          | bleiben bleibst bleibt geblieben sein
talk      | talks talking talked          | sprechen sprichst spricht gesprochen
tell      | tells telling told            | erzählen erzählst erzählt erzählt
thank     | thanks thanking thanked       | danken dankst dankt gedankt
think     | thinks thinking thought       | denken denkst denkt gedacht
travel    | travels traveling traveled    | reisen reist reist gereist sein
turn      | turns turning turned          | werden wirst wird geworden sein
turn off  | turns turning turned          | aus+machen machst macht gemacht
turn on   | turns turning turned          | an+machen machst macht gemacht
visit     | visits visiting visited       | besuchen besuchst besucht besucht
wait      | waits waiting waited          | warten wartest wartet gewartet
wash      | washes washing washed         | waschen wäschst wäscht gewaschen
watch TV  | watches watching watched      | fern+sehen siehst sieht gesehen
work      | works working worked          | arbeiten arbeitest arbeitet gearbeitet
write     | writes writing wrote          | schreiben schreibst schreibt geschrieben
"""
HABEN, SEIN = ("habe", "hast", "hat", "haben"), ("bin", "bist", "ist", "sind")
FIRST_PERSON = {"mögen": "mag", "wissen": "weiß"}  # all others: the infinitive without its n
# Verbs that take an infinitive: English (all persons but the third singular, the third), German.
MODALS = {
    "will": ("will", "will", ("werde", "wirst", "wird", "werden")),
    "can": ("can", "can", ("kann", "kannst", "kann", "können")),
    "must": ("must", "must", ("muss", "musst", "muss", "müssen")),
    "should": ("should", "should", ("sollte", "solltest", "sollte", "sollten")),
    "want": ("want to", "wants to", ("will", "willst", "will", "wollen")),
}
# Place, English prepositions (at, to, from), German noun, gender, prepositions (at, to, from).
_PLACES = """
park    | in the, to the, from the | Park m       | in in aus
garden  | in the, to the, from the | Garten m     | in in aus
kitchen | in the, to the, from the | Küche f      | in in aus
library | in the, to the, from the | Bibliothek f | in in aus
school  | at, to, from             | Schule f     | in in aus
theater | at the, to the, from the | Theater n    | in in aus
office  | at the, to the, from the | Büro n       | in in aus
station | at the, to the, from the | Bahnhof m    | an zu von
"""
CITIES = {"Berlin": "Berlin", "Hamburg": "Hamburg", "Vienna": "Wien", "Munich": "München"}
CONTRACTIONS = {
    **{("in", "dem"): "im", ("in", "das"): "ins", ("an", "dem"): "am"},
    **{("zu", "dem"): "zum", ("zu", "der"): "zur", ("von", "dem"): "vom"},
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
# The accusative of `they` is left out: it is `sie`, as that of `she`, and German would not tell.
PRONOUNS = (
    Phrase("I", "me", "ich", "mich", "mir", 0, "m"),
    Phrase("you", "you", "du", "dich", "dir", 1, "m"),
    Phrase("he", "him", "er", "ihn", "ihm", SINGULAR, "m"),
    Phrase("she", "her", "sie", "sie", "ihr", SINGULAR, "f"),
    Phrase("we", "us", "wir", "uns", "uns", PLURAL, "m"),
    Phrase("they", "them", "sie", "", "ihnen", PLURAL, "m"),
)

# Endings by case, then by m, f, n and plural.
DEFINITE = ("der die das die", "den die das die", "dem der dem den")
STRONG = ("er e es e", "en e es e", "em er em en")  # also those of dieser
MIXED = ("er e es en", "en e es en", "en en en en")  # after ein
WEAK = ("e e e en", "en e e en", "en en en en")  # after der
EIN = ("- e - e", "en e - e", "em er em en")
DETERMINERS = {
    **{"the": "der", "this": "dies", "these": "dies", "a": "ein", "any": "kein", "-": ""},
    **{"my": "mein", "your": "dein", "his": "sein", "her": "ihr", "our": "unser"},
}


def _ending(paradigm: tuple[str, ...], case: int, column: int) -> str:
    return paradigm[case].split()[column].strip("-")


def determiner(stem: str, case: int, column: int) -> tuple[str, tuple[str, ...]]:
    """Return the inflected determiner and the endings that it asks of an adjective."""
    if stem == "der":
        return _ending(DEFINITE, case, column), WEAK
    if stem == "dies":
        return stem + _ending(STRONG, case, column), WEAK
    return (stem + _ending(EIN, case, column), MIXED) if stem else ("", STRONG)


def decline(stem: str, adjective: str, noun: Noun, case: int, plural: bool) -> str:
    """Return a German noun phrase; `stem` names the determiner and may be empty."""
    column = 3 if plural else "mfn".index(noun.gender)
    article, endings = determiner(stem, case, column)
    if adjective:
        word = GERMAN_ADJECTIVE[adjective]
        adjective = STEM.get(word, word) + _ending(endings, case, column)
    if plural:
        german = noun.german_plural
        german += "n" if case == DATIVE and german[-1] not in "ns" else ""
    else:
        german = noun.german if case == NOMINATIVE else noun.oblique
    return " ".join(filter(None, (article, adjective, german)))


def phrase(code: str, adjective: str, noun: Noun, negative: bool = False) -> Phrase:
    """Return a noun phrase; `code` is an English determiner (- for none), + for the plural.

    In a negative clause the German of an indefinite phrase is `kein`.
    """
    word, plural = code.rstrip("+"), code.endswith("+")
    stem = "kein" if negative and word in "-a" else DETERMINERS[word]
    head = f"{adjective} {noun.english_plural if plural else noun.english}".strip()
    if word == "a" and head[0] in "aeiou":
        word = "an"
    english = head if word == "-" else f"{word} {head}"
    cases = (decline(stem, adjective, noun, case, plural) for case in range(3))
    return Phrase(english, english, *cases, PLURAL if plural else SINGULAR, noun.gender)


def _verbs(table: str) -> dict[str, Verb]:
    verbs = {}
    for line in table.strip().splitlines():
        name, english, german = (column.split() for column in line.split("|"))
        third, ing, past = english
        infinitive, du, er, participle, *auxiliary = german
        prefix, _, infinitive = infinitive.rpartition("+")
        ich = FIRST_PERSON.get(infinitive, infinitive[:-1])
        base, particle = name[0], " ".join(name[1:]).removeprefix("that")
        verbs[" ".join(name)] = Verb(
            base, particle, (base, base, third, base), (past,) * 4, ing,
            prefix + infinitive, prefix, (ich, du, er, infinitive), prefix + participle,
            SEIN if auxiliary else HABEN,
        )  # fmt: skip
    return verbs


VERBS = _verbs(_VERBS)
VERBS["be"] = Verb(
    "be", "", ("am", "are", "is", "are"), ("was", "were", "was", "were"), "being",
    "sein", "", SEIN, "gewesen", SEIN, preterite=("war", "warst", "war", "waren"),
)  # fmt: skip


def _places(table: str) -> dict[str, dict[str, tuple[str, str]]]:
    places = {}
    for line in table.strip().splitlines():
        name, english, german, prepositions = (column.strip() for column in line.split("|"))
        german, gender = german.split()
        ways = zip(("at", "to", "from"), english.split(", "), prepositions.split(), strict=True)
        places[name] = {}
        for way, at, preposition in ways:
            case = ACCUSATIVE if way == "to" and preposition == "in" else DATIVE
            article, _ = determiner("der", case, "mfn".index(gender))
            words = CONTRACTIONS.get((preposition, article), f"{preposition} {article}")
            places[name][way] = (f"{at} {name}", f"{words} {german}")
    return places


# For every place its (English, German) for at, to and from.
PLACES = _places(_PLACES)

_ENGLISH = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen"
).split()
_ENGLISH_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_ENGLISH_ORDINAL = dict(
    one="first", two="second", three="third", five="fifth", eight="eighth", nine="ninth",
    twelve="twelfth", twenty="twentieth", thirty="thirtieth",
)  # fmt: skip
_GERMAN = (
    "null eins zwei drei vier fünf sechs sieben acht neun zehn elf zwölf dreizehn vierzehn fünfzehn"
    " sechzehn siebzehn achtzehn neunzehn"
).split()
_GERMAN_TENS = "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split()


def english_number(number: int) -> str:
    """Return 0 to 99 in English words."""
    if number < 20:
        return _ENGLISH[number]
    tens, ones = divmod(number, 10)
    return _ENGLISH_TENS[tens - 2] + (f"-{_ENGLISH[ones]}" if ones else "")


def english_ordinal(number: int) -> str:
    """Return 1 to 31 as an English ordinal: `twenty-first`."""
    head, hyphen, last = english_number(number).rpartition("-")
    return head + hyphen + _ENGLISH_ORDINAL.get(last, last + "th")


def german_number(number: int) -> str:
    """Return 0 to 99 in German words as they are counted: `eins`, `einundzwanzig`."""
    if number < 20:
        return _GERMAN[number]
    tens, ones = divmod(number, 10)
    unit = "ein" if ones == 1 else _GERMAN[ones]
    return (f"{unit}und" if ones else "") + _GERMAN_TENS[tens - 2]


def german_ordinal(number: int) -> str:
    """Return 1 to 31 as a German dative ordinal: `einundzwanzigsten`, after `am`."""
    irregular = {1: "ersten", 3: "dritten", 7: "siebten", 8: "achten"}
    return irregular.get(number, german_number(number) + ("ten" if number < 20 else "sten"))
