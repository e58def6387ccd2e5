"""Run the whole inspection, and report section by section."""

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
    """Inspect an experiment's text and print what is found; returns the number of warnings.

    `workdir` is a run's folder, or one that is not there. `form` and `max_warnings` as in
    `make_reporter`. Raises ConfigError and DataError where training would, after what could be told
    before.
    """
    task, settings = TranslationTask(), read_settings(experiment, workdir)
    splits = task.open_splits(settings.experiment)
    tell = make_reporter(form, max_warnings, splits)
    found = sum(map(tell, _text(experiment, splits)))
    vocabulary = find_vocabulary(settings.experiment, workdir, splits["train"])
    run = build(workdir, settings, task, splits, vocabulary, allow_batch_change=True)
    assert isinstance(run.data, TranslationData)
    pairs, data = run.data.pairs, run.experiment.data
    found += tell(lengths.draw_lengths(pairs, data))
    found += tell(lengths.find_outliers(pairs))
    found += tell(lengths.find_dropped(pairs["train"], data))
    found += tell(coverage.find_unknown(splits, vocabulary))
    found += tell(coverage.count_pieces(pairs["train"], vocabulary, rare_below))
    found += tell(coverage.show_samples(splits["train"], vocabulary))
    tell(_needs(estimate_resources(run)))
    tell(Section("in all", {"warnings": found}, [f"{found:,} warnings"]))
    return found


def _text(experiment: Experiment, splits: dict[str, Corpus]) -> Iterator[Section]:
    """What needs no vocabulary."""
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
    with progress_bar("telling languages apart", 2 * total) as progress:
        told = scripts_and_encoding.find_languages(splits, surveys, codes, progress)
    yield told


def _counts(surveys: dict[str, Survey], codes: tuple[str, str]) -> Section:
    """How much text there is; of words only where a language puts spaces between them."""
    values, lines = {}, []
    found = dict(zip(SIDES, map(find_language, codes), strict=True))
    spaced = {name: language is None or language.spaced for name, language in found.items()}
    for split, each in surveys.items():
        sides = {
            name: ({"words": side.words} if spaced[name] else {}) | {"characters": side.characters}
            for name, side in zip(SIDES, (each.source, each.target), strict=True)
        }
        values[split] = {"pairs": len(each), **sides}
        told = "; ".join(
            f"{name} " + ", ".join(f"{count:,} {what}" for what, count in side.items())
            for name, side in sides.items()
        )
        lines.append(f"{split}: {len(each):,} pairs; {told}")
    return Section("counts", values, lines)


def _needs(told: dict) -> Section:
    """What `train --dry_run` tells."""
    memory = ", ".join(f"{k} {n / 2**20:,.1f}" for k, n in told["bytes_per_device"].items())
    shapes = ", ".join(f"{b['rows']}x({b['source']}, {b['target']})" for b in told["batches"])
    mesh = ", ".join(f"{axis} {size}" for axis, size in told["mesh"].items())
    lines = [
        f"{told['num_params']:,} parameters on a mesh of {mesh}",
        f"MiB of a device: {memory}",
        f"batches, rows x (source, target): {shapes}; {told['compilations']} compilations",
        f"{told['tokens_per_step']:,.0f} tokens a step, {told['steps_per_epoch']:,} steps an epoch",
        f"{told['padding_fraction']:.1%} padding",
    ]
    return Section("what training would need", told, lines)
