"""Translator with the search settings of an experiment."""

from decode.translate import Translator
from experiments.config import Experiment


def build_translator(
    experiment: Experiment, model, params, vocabulary, mesh=None, shortlist=None
) -> Translator:
    """Build a translator with the search settings of validation and test."""
    options = experiment.search.options()
    return Translator(model, params, vocabulary, mesh, options, shortlist=shortlist)
