"""Lines in the wrong script or language, blank, or with broken characters."""

from collections import Counter
from collections.abc import Callable
from itertools import islice

import numpy as np

from data.pairs import Corpus
from experiments.inspection import languages
from experiments.inspection.section import SIDES, DataWarning, Section, numbers, share
from experiments.inspection.survey import Side, Survey

_USUAL = 0.05  # of the training lines of a side: a script that it is written in
_LETTERS = 4  # fewer, as in "USB", are no line in another script
_SAMPLE = 2000


def find_undecodable(surveys: dict[str, Survey]) -> Section:
    """Blank lines, and lines with control characters or what undecodable bytes were replaced by."""
    values: dict[str, dict] = {}
    lines, warnings = [], []
    for split, each in surveys.items():
        values[split] = {}
        for number, (name, side) in enumerate(zip(SIDES, each.sides, strict=True)):
            values[split][name] = {
                "blank": int(side.blank.sum()),
                "broken": int(side.broken.sum()),
            }
            lines.append(
                f"{split} {name}: {share(int(side.blank.sum()), len(each))} blank lines, "
                f"{share(int(side.broken.sum()), len(each))} with broken characters"
            )
            warnings += [
                DataWarning("blank", split, number, i, "blank") for i in numbers(side.blank)
            ]
            text = "has control characters or U+FFFD, which stands for undecodable bytes"
            warnings += [
                DataWarning("broken", split, number, i, text) for i in numbers(side.broken)
            ]
    return Section("blank and broken lines", values, lines, warnings)


def find_scripts(surveys: dict[str, Survey]) -> Section:
    """Lines mostly in a script that their side is not written in.

    The scripts of a side are those of at least a twentieth of its training lines.
    """
    values: dict[str, dict] = {}
    lines, warnings = [], []
    for number, name in enumerate(SIDES):
        usual = _scripts(surveys["train"].sides[number])
        lines.append(f"{name}: written in {', '.join(usual) or 'no script'}")
        for split, each in surveys.items():
            side = each.sides[number]
            strange = np.array([n not in usual and n != "" for n in side.names])[side.scripts]
            strange &= (side.letters >= _LETTERS) & bool(usual)
            values.setdefault(split, {})[name] = {
                "scripts": usual,
                "others": int(strange.sum()),
            }
            warnings += [
                DataWarning("script", split, number, i, f"mostly {side.names[side.scripts[i]]}")
                for i in numbers(strange)
            ]
            if strange.any():
                lines.append(f"{split} {name}: {share(int(strange.sum()), len(each))} in others")
    return Section("scripts", values, lines, warnings)


def _scripts(side: Side) -> list[str]:
    counts = np.bincount(side.scripts, minlength=len(side.names))
    counts[0] = 0  # no letters
    return [side.names[i] for i in np.argsort(-counts) if counts[i] > _USUAL * counts.sum()]


def find_languages(
    splits: dict[str, Corpus],
    surveys: dict[str, Survey],
    codes: tuple[str, str],
    progress: Callable[[int], None],
) -> Section:
    """Lines of at least 20 letters that surely read as another language than their side's.

    That is the one of the configuration's code, or where the model knows no such code the one that
    most of the first training lines read as.
    """
    values: dict[str, dict] = {}
    lines, warnings = [], []
    for number, name in enumerate(SIDES):
        long = {split: _long(each.sides[number]) for split, each in surveys.items()}

        def texts(split: str, number=number, long=long):
            return (splits[split][int(i)][number] for i in long[split])

        expected = languages.known(codes[number])
        if not expected:
            expected = languages.usual(islice(texts("train"), _SAMPLE))
            lines.append(
                f"{name}: {codes[number]!r} is a language unknown to py3langid; "
                + (f"most lines read as {expected}" if expected else "its lines read as none")
            )
        for split, each in surveys.items():
            counts: Counter[str] = Counter()
            wrong = []
            found = languages.read_as(texts(split), expected, len(long[split]))
            for i, (language, surely) in zip(long[split], found, strict=True):
                counts[language or "unclear"] += 1
                if surely:
                    text = f"reads as {language}, not {expected}"
                    wrong.append(DataWarning("language", split, number, int(i), text))
                progress(1)
            progress(len(each) - len(long[split]))
            told = dict(counts.most_common(5))
            values.setdefault(split, {})[name] = {
                "expected": expected,
                "judged": len(long[split]),
                "wrong": len(wrong),
                "read_as": told,
            }
            shares = ", ".join(f"{k} {n / len(long[split]):.1%}" for k, n in told.items())
            lines.append(
                f"{split} {name}: {len(wrong):,} of {len(long[split]):,} lines of "
                f"{languages.LETTERS} letters or more are surely not {expected or 'it'}"
                + f"; they read as {shares}"
                * bool(told)
            )
            warnings += wrong
    return Section("languages", values, lines, warnings)


def _long(side: Side) -> np.ndarray:
    return np.flatnonzero(side.letters >= languages.LETTERS)
