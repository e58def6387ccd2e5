"""The flags that all decoding commands share, and the trained translator that they describe."""

from pathlib import Path

from absl import flags

from decode.search import METHODS
from decode.translate import Translator

WORKDIR = flags.DEFINE_string("workdir", None, "A trained run's folder.")
CHECKPOINT = flags.DEFINE_string("checkpoint", "best", "best (by BLEU), last, or a step's number.")
METHOD = flags.DEFINE_enum("method", "beam", METHODS, "How to search.")
BEAM_SIZE = flags.DEFINE_integer("beam_size", None, "Beam width; default: the run's, 4.")
ALPHA = flags.DEFINE_float("alpha", None, "Length penalty's exponent; default: the run's, 0.6.")
MAX_INPUT = flags.DEFINE_string(
    "max_input",
    "split:256",
    "What becomes of a line of more tokens: split:TOKENS translates it in pieces, cut at sentence "
    "ends or between words; refuse:TOKENS stops with the line's number.",
)
flags.mark_flag_as_required("workdir")


def load():
    """What the flags name: a workdir's `Trained` model."""
    from experiments import workdir  # JAX starts here, after the flags are known to be right

    return workdir.load(Path(WORKDIR.value), CHECKPOINT.value)


def make_translator(trained) -> Translator:
    """The `Trained` model with the run's own search settings, but for those that flags change."""
    search = trained.experiment.search
    return Translator(
        trained.model,
        trained.params,
        trained.vocabulary,
        trained.mesh,
        method=METHOD.value,
        beam_size=search.beam_size if BEAM_SIZE.value is None else BEAM_SIZE.value,
        alpha=search.alpha if ALPHA.value is None else ALPHA.value,
        extra_length=search.extra_length,
        max_input=MAX_INPUT.value,
    )
