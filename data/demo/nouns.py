"""Nouns, and the adjectives that fit them; German genders are m, f and n."""

from typing import NamedTuple


class Noun(NamedTuple):
    """A noun; `oblique` is the accusative and dative singular, which the weak masculines mark."""

    english: str
    english_plural: str
    german: str
    german_plural: str
    gender: str
    oblique: str
    adjectives: tuple[str, ...]


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
# The feminine forms, for sentences that state the profession of a woman.
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
