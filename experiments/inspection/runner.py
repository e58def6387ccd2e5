"""Run all sections of an inspection and report them."""

from collections.abc import Iterator
from pathlib import Path

from data.language import find_language
from data.pairs import Corpus
from experiments.config import Experiment
from experiments.console import progress_bar
from experiments.dry_run import estimate_resources
from experiments.inspection import coverage, duplicate_pairs, lengths, scripts_and_encoding
from experiments.inspection.output import make_reporter
from experiments.inspection.section import SIDES, Section
from experiments.inspection.survey import Survey, survey
from experiments.resolve import find_vocabulary
from experiments.setup import build, read_settings
from experiments.translation_data import TranslationData
from experiments.translation_task import TranslationTask


def inspect_data(
    experiment: Experiment,
    workdir: Path,
    form: str = "text",
    max_warnings: int | None = None,
    rare_below: int = 20,
) -> int:
    """Inspect an experiment's text and print all sections; returns the number of warnings.

    `workdir` is a run's folder, or a folder that does not exist. `form` and `max_warnings` as in
    `make_reporter`. Raises ConfigError and DataError if training would; earlier sections have been
    printed by then.
    """
    task, settings = TranslationTask(), read_settings(experiment, workdir)
    splits = task.open_splits(settings.experiment)
    report = make_reporter(form, max_warnings, splits)
    num_warnings = sum(map(report, _text_sections(experiment, splits)))
    vocabulary = find_vocabulary(settings.experiment, workdir, splits["train"])
    run = build(workdir, settings, task, splits, vocabulary, allow_batch_change=True)
    assert isinstance(run.data, TranslationData)
    pairs, data = run.data.pairs, run.experiment.data
    num_warnings += report(lengths.draw_lengths(pairs, data))
    num_warnings += report(lengths.find_outliers(pairs))
    num_warnings += report(lengths.find_dropped(pairs["train"], data))
    num_warnings += report(coverage.find_unknown(splits, vocabulary))
    num_warnings += report(coverage.count_pieces(pairs["train"], vocabulary, rare_below))
    num_warnings += report(coverage.show_samples(splits["train"], vocabulary))
    report(_resources(estimate_resources(run)))
    report(Section("in all", {"warnings": num_warnings}, [f"{num_warnings:,} warnings"]))
    return num_warnings


def _text_sections(experiment: Experiment, splits: dict[str, Corpus]) -> Iterator[Section]:
    """Sections that need no vocabulary."""
    total = sum(map(len, splits.values()))
    with progress_bar("reading", total) as progress:
        surveys = {split: survey(pairs, progress) for split, pairs in splits.items()}
    codes = experiment.data.source_language, experiment.data.target_language
    yield _counts(surveys, codes)
    yield scripts_and_encoding.find_undecodable(surveys)
    yield duplicate_pairs.find_duplicates(splits, surveys)
    yield duplicate_pairs.find_copies(surveys)
    yield duplicate_pairs.find_overlap(splits, surveys)
    yield scripts_and_encoding.find_scripts(surveys)
    with progress_bar("identifying languages", 2 * total) as progress:
        section = scripts_and_encoding.find_languages(splits, surveys, codes, progress)
    yield section


def _counts(surveys: dict[str, Survey], codes: tuple[str, str]) -> Section:
    """Size of the text; words are counted only for languages with spaces between them."""
    values, lines = {}, []
    languages = dict(zip(SIDES, map(find_language, codes), strict=True))
    spaced = {name: language is None or language.spaced for name, language in languages.items()}
    for split, surveyed in surveys.items():
        sides = {
            name: ({"words": side.words} if spaced[name] else {}) | {"characters": side.characters}
            for name, side in zip(SIDES, (surveyed.source, surveyed.target), strict=True)
        }
        values[split] = {"pairs": len(surveyed), **sides}
        summary = "; ".join(
            f"{name} " + ", ".join(f"{count:,} {unit}" for unit, count in side.items())
            for name, side in sides.items()
        )
        lines.append(f"{split}: {len(surveyed):,} pairs; {summary}")
    return Section("counts", values, lines)


def _resources(estimate: dict) -> Section:
    """The resource estimate of `train --dry_run`."""
    memory = ", ".join(f"{k} {n / 2**20:,.1f}" for k, n in estimate["bytes_per_device"].items())
    shapes = ", ".join(f"{b['rows']}x({b['source']}, {b['target']})" for b in estimate["batches"])
    mesh = ", ".join(f"{axis} {size}" for axis, size in estimate["mesh"].items())
    lines = [
        f"{estimate['num_params']:,} parameters on a mesh of {mesh}",
        f"MiB per device: {memory}",
        f"batches, rows x (source, target): {shapes}; {estimate['compilations']} compilations",
        f"{estimate['tokens_per_step']:,.0f} tokens per step, "
        f"{estimate['steps_per_epoch']:,} steps per epoch",
        f"{estimate['padding_fraction']:.1%} padding",
    ]
    return Section("what training would need", estimate, lines)
