"""Search flags of all commands that translate, and the translator they define."""

from dataclasses import asdict, replace
from pathlib import Path

from absl import flags

from data.errors import DataError
from decode import shortlist
from decode.inputs import phrase_encodings
from decode.options import METHOD_OPTIONS, METHODS, PENALTIES, STOPPING, InputError, SearchOptions
from decode.translate import Translator
from decode.weights import PRECISIONS
from experiments import model_flags
from experiments.float_flags import define_float
from experiments.model_flags import CHECKPOINT, WORKDIR
from model import ConfigError
from train.checkpoint import CheckpointError

flags.adopt_module_key_flags(model_flags)  # so that --help tells them too
LONG_INPUT = flags.DEFINE_string(
    "long_input",
    "split:256",
    "What becomes of a line of more tokens: split:TOKENS translates it in pieces, cut at sentence "
    "ends or between words; error:TOKENS stops with the line's number.",
)
TOKENS_PER_BATCH = flags.DEFINE_integer(
    "tokens_per_batch",
    None,
    "Source positions that a device searches for together; default: what it is fastest with. "
    "Less needs less memory; no result depends on it.",
    lower_bound=1,
)
ENSEMBLE = flags.DEFINE_list(
    "ensemble",
    [],
    "More runs, DIR or DIR:CHECKPOINT each, named as for --checkpoint, whose (first) name is the "
    "default: the mean of all models' probabilities. One vocabulary. Alignments are --workdir's "
    "model's.",
)
PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    PRECISIONS,
    "Of the weights' matrices: bfloat16 or int8 are faster and a little less exact.",
)
SHORTLIST = flags.DEFINE_bool(
    "shortlist",
    True,
    "Whether outputs are made of the words of the run's shortlist alone, where it has one, as runs "
    "have that were imported with theirs.",
)
FORBID = flags.DEFINE_multi_string(
    "forbid",
    [],
    "A word or phrase that no output contains, spelled as after a space, or punctuation anywhere; "
    "repeatable.",
)
N_BEST = flags.DEFINE_integer(
    "n_best", None, "Hypotheses a sentence, for --format=jsonl; default: 1."
)
METHOD = flags.DEFINE_enum("method", None, METHODS, "How to search; default: beam.")
SAMPLES = flags.DEFINE_integer("num_samples", None, "How many to draw with --method=sample or mbr.")
SEARCH = [  # flags that are fields of SearchOptions; unset, they are the run's or the default
    METHOD,
    flags.DEFINE_integer("beam_size", None, "Beam width; default: the run's, 4."),
    flags.DEFINE_enum(
        "penalty",
        None,
        PENALTIES,
        "What a score is divided by; default: the run's; gnmt: "
        "((5+n)/6)^alpha, n tokens; average: n^alpha; none.",
    ),  # fmt: skip
    define_float("alpha", None, "Length penalty's exponent; default: the run's, 0.6."),
    define_float("coverage", None, "Weight of the coverage penalty; default: 0."),
    flags.DEFINE_enum(
        "stopping",
        None,
        STOPPING,
        "When a beam is done; default: the run's: full, as soon as "
        "beam_size hypotheses ended; unbeaten: when none live would be better if it ended now; "
        "unbeatable: when none can become better; limit: at the length limit.",
    ),  # fmt: skip
    flags.DEFINE_bool(
        "free_eos_at_limit",
        None,
        "Whether an end at the length limit, where nothing else may follow, costs nothing; "
        "default: the run's, no.",
    ),
    define_float("patience", None, "With --stopping=full, times beam_size; default: 1."),
    flags.DEFINE_integer("num_groups", None, "Of a diverse beam search; default: 1, a plain one."),
    define_float(
        "diversity_penalty", None, "What a token costs that an earlier group took; default: 0.5."
    ),  # fmt: skip
    SAMPLES,
    define_float("temperature", None, "Of sampling: under 1 sharper, over 1 flatter."),
    flags.DEFINE_integer("top_k", None, "Sample from the K likeliest tokens only; 0: from all."),
    define_float("top_p", None, "Sample from the likeliest tokens of this total only."),
    define_float("min_p", None, "Sample tokens at least this share as likely as the first."),
    flags.DEFINE_integer("seed", None, "Of samples; default: 0."),
    flags.DEFINE_enum("utility", None, ("chrf", "bleu"), "Likeness in --method=mbr."),
    N_BEST,
    flags.DEFINE_integer("min_length", None, "Fewest tokens of an output, its end included."),
    flags.DEFINE_integer(
        "max_length",
        None,
        "Most tokens of an output, its end included; default: the run's, 0: no such limit. Of the "
        "three limits the lowest holds.",
    ),
    define_float(
        "max_ratio", None, "Most tokens, as a ratio to the source's; default: 0, no such limit."
    ),
    flags.DEFINE_integer(
        "max_length_offset", None, "Most tokens more than the source; default: the run's, 50."
    ),
    flags.DEFINE_bool(
        "allow_unknown",
        None,
        "Whether outputs may have unknown words, which are left out of the text; default: the "
        "run's, no.",
    ),
    flags.DEFINE_bool(
        "renormalize",
        None,
        "Whether log-probabilities are among EOS and what stands for text alone; default: the "
        "run's, no.",
    ),
    flags.DEFINE_integer("no_repeat_ngrams", None, "No N tokens in a row occur twice; 0: may."),
    define_float(
        "repetition_penalty",
        None,
        "Log-probabilities of tokens already there times this; default: 1.",
    ),  # fmt: skip
]


def _other(name: str, trained) -> tuple:
    """The model and parameters that one item of --ensemble names."""
    from experiments import workdir

    # A folder's name may have colons of its own, and so may a checkpoint's.
    ends = [at for at, letter in enumerate(name) if letter == ":"] + [len(name)]
    end = max((at for at in ends if Path(name[:at]).is_dir()), default=len(name))
    folder, checkpoint = name[:end], name[end + 1 :] or CHECKPOINT.value.split(",")[0]
    workdir.read_config(Path(folder), "ensemble")
    try:
        other = workdir.load(Path(folder), checkpoint, trained.mesh)
    except (ConfigError, DataError, CheckpointError) as error:
        raise InputError(f"--ensemble={name}: {error}") from error
    if other.vocabulary.digest() != trained.vocabulary.digest():
        raise InputError(
            f"--ensemble={name} has another vocabulary than --workdir={WORKDIR.value}: "
            "models of an ensemble share one"
        )
    return other.model, other.params


def build_translator(trained, on_token=None) -> Translator:
    """The `LoadedModel` model with the run's own search settings, but for those that flags change.

    `on_token` as in Translator.
    """
    given = {flag.name: flag.value for flag in SEARCH if flag.value is not None}
    ran = asdict(trained.experiment.search)
    if given.get("method", "beam") != "beam":
        ran = {name: value for name, value in ran.items() if name not in METHOD_OPTIONS["beam"]}
    if given.get("penalty") == "none":
        ran.pop("alpha")
    options = SearchOptions(**(ran | given))
    options.reject_unused(given)
    if FORBID.value:
        target = trained.vocabulary.target
        banned = tuple(
            tuple(i) for text in FORBID.value for i in phrase_encodings("--forbid:", text, target)
        )
        options = replace(options, banned=banned)
    others = [_other(name, trained) for name in ENSEMBLE.value]
    return Translator(
        trained.model,
        trained.params,
        trained.vocabulary,
        trained.mesh,
        options,
        others=others,
        precision=PRECISION.value,
        tokens_per_batch=TOKENS_PER_BATCH.value,
        shortlist=shortlist.load(Path(WORKDIR.value)) if SHORTLIST.value else None,
        long_input=LONG_INPUT.value,
        language=trained.experiment.data.target_language,
        on_token=on_token,
    )
