"""Lines in an unexpected script or language, blank lines, undecodable characters."""

from collections import Counter
from collections.abc import Callable
from itertools import islice

import numpy as np

from data.pairs import Corpus
from experiments.inspection import languages
from experiments.inspection.section import SIDES, DataWarning, Section, indices_of, with_share
from experiments.inspection.survey import Side, Survey

_USUAL = 0.05  # minimum share of a side's training lines for a script to count as usual
_LETTERS = 4  # minimum letters of a line, which excludes words such as "USB"
_SAMPLE = 2000


def find_undecodable(surveys: dict[str, Survey]) -> Section:
    """Find blank lines, and lines with control characters or U+FFFD for undecodable bytes."""
    values: dict[str, dict] = {}
    lines, warnings = [], []
    for split, survey in surveys.items():
        values[split] = {}
        for number, (name, side) in enumerate(zip(SIDES, survey.sides, strict=True)):
            values[split][name] = {
                "blank": int(side.blank.sum()),
                "broken": int(side.broken.sum()),
            }
            lines.append(
                f"{split} {name}: {with_share(int(side.blank.sum()), len(survey))} blank lines, "
                f"{with_share(int(side.broken.sum()), len(survey))} with broken characters"
            )
            warnings += [
                DataWarning("blank", split, number, i, "blank") for i in indices_of(side.blank)
            ]
            text = "has control characters or U+FFFD, which stands for undecodable bytes"
            warnings += [
                DataWarning("broken", split, number, i, text) for i in indices_of(side.broken)
            ]
    return Section("blank and broken lines", values, lines, warnings)


def find_scripts(surveys: dict[str, Survey]) -> Section:
    """Find lines mostly in a script that is unusual for their side.

    The usual scripts of a side are those of over 5% of its training lines.
    """
    values: dict[str, dict] = {}
    lines, warnings = [], []
    for number, name in enumerate(SIDES):
        usual = _scripts(surveys["train"].sides[number])
        lines.append(f"{name}: written in {', '.join(usual) or 'no script'}")
        for split, survey in surveys.items():
            side = survey.sides[number]
            unusual = np.array([n not in usual and n != "" for n in side.names])[side.scripts]
            unusual &= (side.letters >= _LETTERS) & bool(usual)
            values.setdefault(split, {})[name] = {
                "scripts": usual,
                "others": int(unusual.sum()),
            }
            warnings += [
                DataWarning("script", split, number, i, f"mostly {side.names[side.scripts[i]]}")
                for i in indices_of(unusual)
            ]
            if unusual.any():
                lines.append(
                    f"{split} {name}: {with_share(int(unusual.sum()), len(survey))} in others"
                )
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
    """Find lines of at least 20 letters that are not in the language of their side.

    The language of a side is that of the config's code, or, if py3langid does not know the code,
    the most frequent one of the first training lines.
    """
    values: dict[str, dict] = {}
    lines, warnings = [], []
    for number, name in enumerate(SIDES):
        long_lines = {split: _long_lines(survey.sides[number]) for split, survey in surveys.items()}

        def texts(split: str, number=number, long_lines=long_lines):
            return (splits[split][int(i)][number] for i in long_lines[split])

        expected = languages.label_of(codes[number])
        if not expected:
            expected = languages.most_frequent(islice(texts("train"), _SAMPLE))
            lines.append(
                f"{name}: py3langid does not know the language {codes[number]!r}; "
                + (f"most lines read as {expected}" if expected else "no line was identified")
            )
        for split, survey in surveys.items():
            counts: Counter[str] = Counter()
            mismatches = []
            identified = languages.identify(texts(split), expected, len(long_lines[split]))
            for i, (language, mismatch) in zip(long_lines[split], identified, strict=True):
                counts[language or "unclear"] += 1
                if mismatch:
                    text = f"reads as {language}, not {expected}"
                    mismatches.append(DataWarning("language", split, number, int(i), text))
                progress(1)
            progress(len(survey) - len(long_lines[split]))
            most_common = dict(counts.most_common(5))
            values.setdefault(split, {})[name] = {
                "expected": expected,
                "judged": len(long_lines[split]),
                "wrong": len(mismatches),
                "read_as": most_common,
            }
            total = len(long_lines[split])
            shares = ", ".join(f"{k} {n / total:.1%}" for k, n in most_common.items())
            lines.append(
                f"{split} {name}: {len(mismatches):,} of {total:,} lines of "
                f"{languages.LETTERS} letters or more are not {expected or 'it'}"
                + (f"; they read as {shares}" if most_common else "")
            )
            warnings += mismatches
    return Section("languages", values, lines, warnings)


def _long_lines(side: Side) -> np.ndarray:
    return np.flatnonzero(side.letters >= languages.LETTERS)
