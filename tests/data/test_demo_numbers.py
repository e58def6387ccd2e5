"""Numbers and dates in words in the demo corpus."""

from data.demo.numbers import english_number, english_ordinal, german_number, german_ordinal
from data.demo.times import DATES, HOURS

ONES = "null eins zwei drei vier fünf sechs sieben acht neun".split()
GERMAN_NUMBERS = {
    **{10: "zehn", 11: "elf", 12: "zwölf", 13: "dreizehn", 16: "sechzehn", 17: "siebzehn"},
    **{
        20: "zwanzig",
        21: "einundzwanzig",
        30: "dreißig",
        31: "einunddreißig",
        47: "siebenundvierzig",
    },
    **{60: "sechzig", 66: "sechsundsechzig", 70: "siebzig", 77: "siebenundsiebzig"},
    **{99: "neunundneunzig"},
}


def test_german_numbers():
    words = [german_number(number) for number in range(100)]
    assert words[:10] == ONES
    assert {number: words[number] for number in GERMAN_NUMBERS} == GERMAN_NUMBERS
    values = {word: number for number, word in enumerate(ONES)} | {"ein": 1}
    tens = "zwanzig dreißig vierzig fünfzig sechzig siebzig achtzig neunzig".split()
    for number in range(20, 100):
        unit, _, ten = words[number].rpartition("und")
        assert 10 * (tens.index(ten) + 2) + (values[unit] if unit else 0) == number
    assert words[13:20] == [
        stem + "zehn" for stem in ("drei", "vier", "fünf", "sech", "sieb", "acht", "neun")
    ]


def test_english_numbers():
    words = [english_number(number) for number in range(100)]
    assert len(set(words)) == 100
    ones = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    assert words[:20] == [*ones.split(), *"fifteen sixteen seventeen eighteen nineteen".split()]
    tens = "twenty thirty forty fifty sixty seventy eighty ninety".split()
    for number in range(20, 100):
        ten, _, unit = words[number].partition("-")
        assert 10 * (tens.index(ten) + 2) + (words.index(unit) if unit else 0) == number


def test_dates():
    ordinals = {1: "first ersten", 2: "second zweiten", 3: "third dritten", 7: "seventh siebten"}
    ordinals |= {8: "eighth achten", 12: "twelfth zwölften", 20: "twentieth zwanzigsten"}
    ordinals |= {5: "fifth fünften", 9: "ninth neunten", 19: "nineteenth neunzehnten"}
    ordinals |= {16: "sixteenth sechzehnten", 17: "seventeenth siebzehnten"}
    ordinals |= {21: "twenty-first einundzwanzigsten", 31: "thirty-first einunddreißigsten"}
    for number, words in ordinals.items():
        english, german = words.split()
        assert english_ordinal(number) == english
        assert german_ordinal(number) == german
    assert len(DATES) == 366
    assert DATES["on the twenty-ninth of February"] == "am neunundzwanzigsten Februar"
    assert "on the thirty-first of April" not in DATES
    assert HOURS["on Monday at one o'clock"] == "am Montag um ein Uhr"
