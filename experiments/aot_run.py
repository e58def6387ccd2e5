"""Compile an experiment's programs for a target: one report per mesh."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from jax.sharding import Mesh

from aot.fit import fit
from aot.report import Report
from aot.search_program import report_search
from aot.targets import Target
from aot.train_program import TrainProgram, report_training
from experiments.aot_programs import (
    config_batch,
    experiment_without_text,
    parse_mesh,
    read_schedule,
    search_program,
    text_batch,
    text_is_here,
    training_program,
)
from experiments.config import Experiment
from experiments.console import log
from model import ConfigError
from model.sharding import make_mesh


def train_reports(
    experiment: Experiment, target: Target, meshes: Sequence[str], batches: str
) -> Iterator[Report]:
    """Compile the train step for each mesh; `batches` is auto, text or config."""
    experiment, program, source = _program(experiment, batches)
    for mesh in _meshes(experiment, meshes, target):
        yield _report(experiment, program, target, mesh, source)


def fit_reports(
    experiment: Experiment, target: Target, meshes: Sequence[str], batches: str
) -> Iterator[Report]:
    """Compile variants of a run until the best mesh and its largest batch are known."""
    if batches == "text":
        raise ConfigError("--fit changes data.tokens_per_batch: leave --batches=text out")
    experiment = experiment_without_text(experiment)

    def compile_variant(changes: dict[str, Any], mesh: Mesh) -> Report:
        changed = _changed(experiment, changes)
        program = training_program(changed, *config_batch(changed))
        return _report(changed, program, target, mesh, "config", changes)

    mesh_choices = [parse_mesh(text, target) for text in meshes]
    yield from fit(compile_variant, target, experiment.data.tokens_per_batch, mesh_choices, log)


def search_reports(
    experiment: Experiment,
    target: Target,
    meshes: Sequence[str],
    *,
    precision: str,
    sentences: int,
    source_length: int,
) -> Iterator[Report]:
    """Compile the search for each mesh; `sentences` are those of one device."""
    experiment = experiment_without_text(experiment)
    for mesh in _meshes(experiment, meshes, target):
        program = search_program(experiment, precision, sentences * mesh.size, source_length)
        search = experiment.search
        settings = {"precision": precision, "beam_size": search.beam_size}
        yield report_search(program, target, mesh, settings=settings)


def _program(experiment: Experiment, batches: str) -> tuple[Experiment, TrainProgram, str]:
    if batches == "auto":
        batches = "text" if text_is_here(experiment) else "config"
    if batches == "text":
        experiment, schedule, pairs = read_schedule(experiment)
        return experiment, training_program(experiment, *text_batch(schedule, pairs)), batches
    experiment = experiment_without_text(experiment)
    return experiment, training_program(experiment, *config_batch(experiment)), batches


def _meshes(experiment: Experiment, texts: Sequence[str], target: Target) -> list[Mesh]:
    if texts:
        return [parse_mesh(text, target) for text in texts]
    m = experiment.mesh
    return [make_mesh(m.data, m.fsdp, m.tensor, devices=target.devices)]


def _report(experiment, program, target, mesh, source, changes=None) -> Report:
    settings = {
        "dtype": experiment.model.dtype,
        "remat": experiment.model.remat,
        "scan_layers": experiment.model.scan_layers,
        "grad_accum_steps": experiment.optimizer.grad_accum_steps,
        "tokens_per_batch": experiment.data.tokens_per_batch,
    } | (changes or {})
    return report_training(program, target, mesh, settings=settings, shape_source=source)


def _changed(experiment: Experiment, changes: dict[str, Any]) -> Experiment:
    """The experiment with settings by their last name, such as "remat"."""
    sections = {
        "remat": "model",
        "scan_layers": "model",
        "grad_accum_steps": "optimizer",
        "tokens_per_batch": "data",
    }
    for name, value in changes.items():
        section = getattr(experiment, sections[name])
        experiment = replace(experiment, **{sections[name]: replace(section, **{name: value})})
    return experiment
