"""Language codes, and whether a language separates words by spaces.

Codes are those of ISO 639-1 and 639-3 ("de", "deu"), alone or with a script or a region, as BCP
47, locales and NLLB write them ("pt-BR", "zh_CN", "zho_Hans"). langcodes has the lists.
"""

from difflib import get_close_matches
from functools import cache
from typing import NamedTuple

# Scripts without spaces between words, by their ISO 15924 codes.
_CHINESE = ("Hans", "Hant", "Hani")
_SPACELESS = (*_CHINESE, "Jpan", "Hira", "Kana", "Thai", "Khmr", "Laoo", "Mymr", "Tibt", "Lana")


class Language(NamedTuple):
    """A language as it is written: its shortest ISO 639 code, and its script's ISO 15924 code."""

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
    """The language of a code, with the script that it is mostly written in, or None."""
    import langcodes

    try:
        found = langcodes.get(code)
    except ValueError:
        return None
    if not found.language or not found.is_valid():
        return None
    usual = found.prefer_macrolanguage()  # Mandarin is "zh", as most write it
    return Language(usual.language or found.language, found.maximize().script or "")


def nearest_codes(code: str) -> list[str]:
    """At most three codes of ISO 639-1 or their forms of three letters that look like `code`."""
    from langcodes.data_dicts import LANGUAGE_ALPHA3

    base = code.lower().replace("_", "-").split("-")[0]
    known = LANGUAGE_ALPHA3 if len(base) == 2 else set(LANGUAGE_ALPHA3.values())
    return get_close_matches(base, sorted(known), cutoff=0.5) if len(base) in (2, 3) else []
