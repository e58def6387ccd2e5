"""Cardinal and ordinal numbers in English and German words."""

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
