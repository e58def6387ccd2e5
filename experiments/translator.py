"""Translator with an experiment's own search settings."""

from decode.translate import Translator
from experiments.config import Experiment


def build_translator(
    experiment: Experiment, model, params, vocabulary, mesh=None, shortlist=None
) -> Translator:
    """A translator that searches as validation and test of the experiment do."""
    options = experiment.search.options()
    return Translator(model, params, vocabulary, mesh, options, shortlist=shortlist)
