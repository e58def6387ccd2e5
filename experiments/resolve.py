"""Settings that follow from others: vocabulary, model sizes, those of `init_from`."""

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


def find_vocabulary(experiment: Experiment, workdir: Path, pairs: Corpus) -> Vocabulary:
    """Return the run's vocabulary if it has a checkpoint; else a ready-made or a learned one.

    With several processes, the primary process finds it for all.
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


def _find_vocabulary(experiment: Experiment, workdir: Path, pairs: Corpus) -> Vocabulary:
    data = experiment.data
    if has_checkpoint(workdir):
        return Vocabulary.load(workdir)
    if experiment.init_from:
        return Vocabulary.load(experiment.init_from)
    if data.tokenizer_path:
        ready = [load_tokenizer(file) for file in data.tokenizer_path.split(",")]
        return Vocabulary(ready[0], ready[-1])
    log(f"learning a vocabulary of {data.vocab_size} from {len(pairs)} pairs")
    with progress_bar("learning the vocabulary", None):
        return Vocabulary.train(pairs, data.vocab_size, data.tokenizer, data.shared_vocab)


def resolve(experiment: Experiment, vocabulary: Vocabulary, old: Experiment | None) -> Experiment:
    """Return the experiment with all derived settings filled in.

    These are the vocabulary sizes of the model, the size of a ready-made vocabulary, and the
    absolute path of the text. `old` is the resumed experiment: its settings without effect stay.
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
        learned = old.data if old else replace(DataConfig(), vocab_size=size)
        data = replace(data, vocab_size=learned.vocab_size, tokenizer=learned.tokenizer)
    if data.path and Path(data.path).exists():
        data = replace(data, path=str(Path(data.path).absolute()))
    return replace(experiment, model=model, data=data)


# Settings of the run itself, not inherited with `init_from`: they do not change the model.
_OWN = ("dropout", "attention_dropout", "ff_dropout", "dtype", "remat")


def inherit_model_config(
    experiment: Experiment, begun: Experiment | None, given: Collection[str] = ()
) -> Experiment:
    """Return the experiment with the model and vocabulary of `init_from`, if that is set.

    It also inherits the search settings if it has none of its own: all are defaults, and none is
    in `given`, the settings that flags set. Once the run has a checkpoint, they are read from
    `begun`, its stored experiment, and the other run is no longer needed. Raises ConfigError.
    """
    if not experiment.init_from:
        return experiment
    source = Path(experiment.init_from)
    inherited = begun or read_config(source, "config.init_from")
    if not begun and not has_checkpoint(source):
        raise ConfigError(f"--config.init_from={source} has no checkpoint to begin with")
    kept_settings = {name: getattr(experiment.model, name) for name in _OWN}
    search = inherited.search
    if experiment.search != SearchConfig() or any(name.startswith("search.") for name in given):
        # The forced first token belongs to the vocabulary.
        forced_bos_id = experiment.search.forced_bos_id or inherited.search.forced_bos_id
        search = replace(experiment.search, forced_bos_id=forced_bos_id)
    return replace(
        experiment,
        model=replace(inherited.model, **kept_settings),
        data=replace(experiment.data, **_vocabulary_settings(inherited, resumed=bool(begun))),
        search=search,
        init_from=str(source.absolute()),
    )


def _vocabulary_settings(inherited: Experiment, resumed: bool) -> dict:
    """Data settings for a vocabulary inherited from another run."""
    if resumed:  # earlier versions stored the settings of the config
        names = "tokenizer", "vocab_size", "shared_vocab", "tokenizer_path"
        return {name: getattr(inherited.data, name) for name in names}
    return {
        "tokenizer": inherited.data.tokenizer,
        "vocab_size": inherited.model.vocab_size,
        "shared_vocab": inherited.model.target_vocab_size is None,
        "tokenizer_path": "",
    }


def check_sizes(experiment: Experiment) -> None:
    """Raise ConfigError if a vocabulary size is set on the model instead of on the data."""
    for name in ("vocab_size", "target_vocab_size"):
        size = getattr(experiment.model, name)
        if size != getattr(TransformerConfig, name):
            raise ConfigError(
                f"config.model.{name}={size} follows from the vocabulary: set "
                "config.data.vocab_size (and config.data.shared_vocab) instead"
            )
