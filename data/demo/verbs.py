"""Verbs and modals in the forms that clauses need.

Finite forms are indexed by person: 0 for I, 1 for you, 2 for the singular, 3 for the plural.
"""

from typing import NamedTuple


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
# The English name and the German forms of verbs that are followed by an infinitive.
MODALS = {
    "will": ("werde", "wirst", "wird", "werden"),
    "can": ("kann", "kannst", "kann", "können"),
    "must": ("muss", "musst", "muss", "müssen"),
    "should": ("sollte", "solltest", "sollte", "sollten"),
    "want": ("will", "willst", "will", "wollen"),
}


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
