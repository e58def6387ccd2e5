"""Resolve derived settings: vocabulary, model sizes, settings inherited by `init_from`."""

import json
from base64 import b64decode, b64encode
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from data.pairs import Corpus
from data.vocabulary import Vocabulary, load_tokenizer, read_tokenizer
from experiments.config import DataConfig, Experiment, SearchConfig
from experiments.console import log, progress_bar
from experiments.workdir import has_checkpoint, read_config
from model import ConfigError, TransformerConfig
from train.multihost import run_on_primary_and_broadcast


def find_vocabulary(experiment: Experiment, workdir: Path | None, pairs: Corpus) -> Vocabulary:
    """Return the vocabulary of a run with a checkpoint; else a ready-made or newly trained one.

    With several processes, the primary process finds it and broadcasts it.
    """
    vocabularies: list[Vocabulary] = []

    def find() -> bytes:
        vocabularies.append(_find_vocabulary(experiment, workdir, pairs))
        sides = {side.digest(): side.to_bytes() for side in vocabularies[0]}  # one if shared
        return json.dumps([b64encode(model).decode() for model in sides.values()]).encode()

    models_json = run_on_primary_and_broadcast(find)
    if not vocabularies:
        models = [read_tokenizer(b64decode(model)) for model in json.loads(models_json)]
        vocabularies.append(Vocabulary(models[0], models[-1]))
    return vocabularies[0]


def _find_vocabulary(experiment: Experiment, workdir: Path | None, pairs: Corpus) -> Vocabulary:
    data = experiment.data
    if workdir is not None and has_checkpoint(workdir):
        return Vocabulary.load(workdir)
    if experiment.init_from:
        return Vocabulary.load(experiment.init_from)
    if data.tokenizer_path:
        tokenizers = [load_tokenizer(file) for file in data.tokenizer_path.split(",")]
        return Vocabulary(tokenizers[0], tokenizers[-1])
    log(f"learning a vocabulary of {data.vocab_size} from {len(pairs)} pairs")
    with progress_bar("learning the vocabulary", None):
        return Vocabulary.train(pairs, data.vocab_size, data.tokenizer, data.shared_vocab)


def resolve(experiment: Experiment, vocabulary: Vocabulary) -> Experiment:
    """Return the experiment with all derived settings filled in.

    These are the vocabulary sizes of the model, the size of a ready-made vocabulary, and the
    absolute path of the text.
    """
    model, data = experiment.model, experiment.data
    if not vocabulary.shared and model.tying == "all":
        raise ConfigError(
            "data.shared_vocab=False needs model.tying=decoder or none: two vocabularies"
        )
    size = vocabulary.source.vocab_size
    target = None if vocabulary.shared else vocabulary.target.vocab_size
    model = replace(model, vocab_size=size, target_vocab_size=target)
    if data.tokenizer_path:
        data = replace(data, vocab_size=size, tokenizer=DataConfig.tokenizer)  # `tokenizer`: unused
    if data.path and Path(data.path).exists():
        data = replace(data, path=str(Path(data.path).absolute()))
    return replace(experiment, model=model, data=data)


# Settings of the run itself, not inherited with `init_from`: they do not change the model.
_NOT_INHERITED = (
    "dropout", "attention_dropout", "mlp_dropout", "dtype", "remat", "attention_kernel"
)  # fmt: skip


def inherit_model_config(
    experiment: Experiment, previous: Experiment | None, from_flags: Collection[str] = ()
) -> Experiment:
    """Return the experiment with the model and vocabulary of `init_from`, if that is set.

    The search settings are inherited too, unless one of them differs from its default or is in
    `from_flags`, the settings that flags set. Once the run has a checkpoint, model and vocabulary
    are inherited from `previous`, its stored experiment, and the source run is no longer needed:
    without it the search settings remain those of `previous`, which is logged. Raises ConfigError.
    """
    if not experiment.init_from:
        return experiment
    source = Path(experiment.init_from)
    inherited = previous or read_config(source, "config.init_from")
    if not previous and not has_checkpoint(source):
        raise ConfigError(f"--config.init_from={source} has no checkpoint to start from")
    local_settings = {name: getattr(experiment.model, name) for name in _NOT_INHERITED}
    search = source_search = inherited.search
    if previous:
        # A flag of the last start that is not repeated has no effect, as for all other settings.
        search = source_search = _search_of(source) or previous.search
    if experiment.search != SearchConfig() or any(
        name.startswith("search.") for name in from_flags
    ):
        # The forced first token belongs to the vocabulary.
        forced_bos_id = experiment.search.forced_bos_id or source_search.forced_bos_id
        search = replace(experiment.search, forced_bos_id=forced_bos_id)
    return replace(
        experiment,
        model=replace(inherited.model, **local_settings),
        data=replace(
            experiment.data,
            tokenizer=inherited.data.tokenizer,
            vocab_size=inherited.model.vocab_size,
            shared_vocab=inherited.model.target_vocab_size is None,
            tokenizer_path="",
        ),
        search=search,
        init_from=str(source.absolute()),
    )


def _search_of(source: Path) -> SearchConfig | None:
    """The search settings of the run in `init_from`; None, after a message, if it is gone."""
    try:
        return read_config(source, "config.init_from").search
    except ConfigError as error:
        log(f"{error}; search settings that are not set now remain those of the last start")
        return None


def check_sizes(experiment: Experiment) -> None:
    """Raise ConfigError if a vocabulary size is set on the model instead of on the data."""
    for name in ("vocab_size", "target_vocab_size"):
        size = getattr(experiment.model, name)
        if size != getattr(TransformerConfig, name):
            raise ConfigError(
                f"config.model.{name}={size} follows from the vocabulary: set "
                "config.data.vocab_size (and config.data.shared_vocab) instead"
            )
