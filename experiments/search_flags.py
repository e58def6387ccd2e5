"""Search flags of all commands that translate, and the translator they define."""

from dataclasses import asdict, replace
from pathlib import Path

from absl import flags

from data.errors import DataError
from decode import shortlist
from decode.options import METHOD_OPTIONS, METHODS, PENALTIES, STOPPING, InputError, SearchOptions
from decode.phrase_encoding import phrase_encodings
from decode.translate import Translator
from decode.weights import PRECISIONS
from experiments import model_flags
from experiments.float_flags import define_float
from experiments.model_flags import CHECKPOINT, WORKDIR
from model import ConfigError
from train.checkpoint import CheckpointError

flags.adopt_module_key_flags(model_flags)  # so that --help shows them too
LONG_INPUT = flags.DEFINE_string(
    "long_input",
    "split:256",
    "Handling of lines with more tokens: split:TOKENS splits them at sentence ends or between "
    "words and translates the segments; error:TOKENS stops with the line's number.",
)
TOKENS_PER_BATCH = flags.DEFINE_integer(
    "tokens_per_batch",
    None,
    "Source positions of a batch per device; default: the fastest value. Lower values need less "
    "memory; results do not depend on it.",
    lower_bound=1,
)
ENSEMBLE = flags.DEFINE_list(
    "ensemble",
    [],
    "More runs to ensemble by the mean probability, DIR or DIR:CHECKPOINT each; CHECKPOINT as in "
    "--checkpoint, whose (first) name is the default. All share one vocabulary. Alignments are "
    "those of the model of --workdir.",
)
PRECISION = flags.DEFINE_enum(
    "precision",
    "float32",
    PRECISIONS,
    "Precision of the weight matrices: bfloat16 and int8 are faster and slightly less accurate.",
)
SHORTLIST = flags.DEFINE_bool(
    "shortlist",
    True,
    "Restrict outputs to the words of the run's shortlist, if it has one (as models imported with "
    "a shortlist do).",
)
FORBID = flags.DEFINE_multi_string(
    "forbid",
    [],
    "A word or phrase that no output may contain, matched after a space, or punctuation, matched "
    "anywhere; repeatable.",
)
N_BEST = flags.DEFINE_integer(
    "n_best", None, "Hypotheses per sentence, for --format=jsonl; default: 1."
)
METHOD = flags.DEFINE_enum("method", None, METHODS, "Search method; default: beam.")
SAMPLES = flags.DEFINE_integer(
    "num_samples", None, "Number of samples with --method=sample or mbr."
)
SEARCH = [  # fields of SearchOptions; an unset flag means the run's value or the default
    METHOD,
    flags.DEFINE_integer("beam_size", None, "Beam width; default: the run's, 4."),
    flags.DEFINE_enum(
        "penalty",
        None,
        PENALTIES,
        "Divisor of a score; default: the run's; gnmt: "
        "((5+n)/6)^alpha, n tokens; average: n^alpha; none.",
    ),  # fmt: skip
    define_float("alpha", None, "Exponent of the length penalty; default: the run's, 0.6."),
    define_float("coverage", None, "Weight of the coverage penalty; default: 0."),
    flags.DEFINE_enum(
        "stopping",
        None,
        STOPPING,
        "When a beam search stops; default: the run's. full: when "
        "beam_size hypotheses are finished; unbeaten: when no live one would be better if it ended "
        "now; unbeatable: when none can become better; limit: at the length limit.",
    ),  # fmt: skip
    flags.DEFINE_bool(
        "free_eos_at_limit",
        None,
        "EOS at the length limit, where no other token is allowed, has no cost; default: the "
        "run's, no.",
    ),
    define_float("patience", None, "With --stopping=full, factor of beam_size; default: 1."),
    flags.DEFINE_integer(
        "num_groups", None, "Groups of a diverse beam search; default: 1, plain beam search."
    ),
    define_float(
        "diversity_penalty", None, "Cost of a token that an earlier group chose; default: 0.5."
    ),  # fmt: skip
    SAMPLES,
    define_float("temperature", None, "Sampling temperature: below 1 sharper, above 1 flatter."),
    flags.DEFINE_integer("top_k", None, "Sample from the K most likely tokens only; 0: from all."),
    define_float(
        "top_p", None, "Sample from the most likely tokens with this total probability (nucleus)."
    ),
    define_float("min_p", None, "Sample tokens with at least this share of the top probability."),
    flags.DEFINE_integer("seed", None, "Random seed of sampling; default: 0."),
    flags.DEFINE_enum("utility", None, ("chrf", "bleu"), "Similarity metric of --method=mbr."),
    N_BEST,
    flags.DEFINE_integer("min_length", None, "Minimum tokens of an output, EOS included."),
    flags.DEFINE_integer(
        "max_length",
        None,
        "Maximum tokens of an output, EOS included; default: the run's, 0: no limit. The lowest of "
        "the three limits applies.",
    ),
    define_float("max_ratio", None, "Maximum tokens relative to the source; default: 0, no limit."),
    flags.DEFINE_integer(
        "max_length_offset", None, "Maximum tokens beyond the source's; default: the run's, 50."
    ),
    flags.DEFINE_bool(
        "allow_unknown",
        None,
        "Allow unknown words in outputs; the text omits them; default: the run's, no.",
    ),
    flags.DEFINE_bool(
        "renormalize",
        None,
        "Renormalize log-probabilities over EOS and the tokens that stand for text; default: the "
        "run's, no.",
    ),
    flags.DEFINE_integer("no_repeat_ngrams", None, "No N-gram occurs twice; 0: no such rule."),
    define_float(
        "repetition_penalty",
        None,
        "Factor for the log-probabilities of tokens already in the output; default: 1.",
    ),  # fmt: skip
]


def _load_ensemble_model(name: str, trained) -> tuple:
    """Load the model and parameters of one item of --ensemble."""
    from experiments import workdir

    # The names of folders and checkpoints may contain colons.
    splits = [index for index, letter in enumerate(name) if letter == ":"] + [len(name)]
    split = max((index for index in splits if Path(name[:index]).is_dir()), default=len(name))
    folder, checkpoint = name[:split], name[split + 1 :] or CHECKPOINT.value.split(",")[0]
    workdir.read_config(Path(folder), "ensemble")
    try:
        loaded = workdir.load(Path(folder), checkpoint, trained.mesh)
    except (ConfigError, DataError, CheckpointError) as error:
        raise InputError(f"--ensemble={name}: {error}") from error
    if loaded.vocabulary.digest() != trained.vocabulary.digest():
        raise InputError(
            f"--ensemble={name} has another vocabulary than --workdir={WORKDIR.value}: "
            "models of an ensemble share one"
        )
    return loaded.model, loaded.params


def translator_from_flags(trained, on_token=None) -> Translator:
    """Build a translator of a `LoadedModel` with the run's search settings, overridden by flags.

    `on_token` as in Translator.
    """
    flag_values = {flag.name: flag.value for flag in SEARCH if flag.value is not None}
    run_values = asdict(trained.experiment.search)
    if flag_values.get("method", "beam") != "beam":
        run_values = {
            name: value for name, value in run_values.items() if name not in METHOD_OPTIONS["beam"]
        }
    if flag_values.get("penalty") == "none":
        run_values.pop("alpha")
    options = SearchOptions(**(run_values | flag_values))
    options.reject_unused(flag_values)
    if FORBID.value:
        target = trained.vocabulary.target
        banned = tuple(
            tuple(i) for text in FORBID.value for i in phrase_encodings("--forbid:", text, target)
        )
        options = replace(options, banned=banned)
    ensemble = [_load_ensemble_model(name, trained) for name in ENSEMBLE.value]
    return Translator(
        trained.model,
        trained.params,
        trained.vocabulary,
        trained.mesh,
        options,
        ensemble=ensemble,
        precision=PRECISION.value,
        tokens_per_batch=TOKENS_PER_BATCH.value,
        shortlist=shortlist.load(Path(WORKDIR.value)) if SHORTLIST.value else None,
        long_input=LONG_INPUT.value,
        language=trained.experiment.data.target_language,
        on_token=on_token,
    )
