"""Language codes, and whether a language separates words by spaces.

Codes are ISO 639-1 and 639-3 ("de", "deu"), alone or with a script or a region, as in BCP 47,
locales and NLLB ("pt-BR", "zh_CN", "zho_Hans"). The langcodes package has the lists.
"""

from difflib import get_close_matches
from functools import cache
from typing import NamedTuple

# Scripts without spaces between words, by their ISO 15924 codes.
_CHINESE = ("Hans", "Hant", "Hani")
_SPACELESS = (*_CHINESE, "Jpan", "Hira", "Kana", "Thai", "Khmr", "Laoo", "Mymr", "Tibt", "Lana")


class Language(NamedTuple):
    """A written language: its shortest ISO 639 code, and the ISO 15924 code of its script."""

    code: str
    script: str

    @property
    def chinese(self) -> bool:
        """Whether it is written in Chinese characters alone."""
        return self.script in _CHINESE

    @property
    def spaced(self) -> bool:
        """Whether there are spaces between its words."""
        return self.script not in _SPACELESS


@cache
def find_language(code: str) -> Language | None:
    """Look up a code's language, with its most common script; None if the code is unknown."""
    import langcodes

    try:
        language = langcodes.get(code)
    except ValueError:
        return None
    if not language.language or not language.is_valid():
        return None
    macrolanguage = language.prefer_macrolanguage()  # Mandarin as "zh", the common code
    return Language(macrolanguage.language or language.language, language.maximize().script or "")


def nearest_codes(code: str) -> list[str]:
    """At most three ISO 639-1 codes, or their three-letter forms, that are similar to `code`."""
    from langcodes.data_dicts import LANGUAGE_ALPHA3

    base = code.lower().replace("_", "-").split("-")[0]
    codes = LANGUAGE_ALPHA3 if len(base) == 2 else set(LANGUAGE_ALPHA3.values())
    return get_close_matches(base, sorted(codes), cutoff=0.5) if len(base) in (2, 3) else []
