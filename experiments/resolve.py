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
    """The run's own vocabulary once it saved a checkpoint; else a ready-made one, or one learned.

    Of several processes the first finds it for all.
    """
    found: list[Vocabulary] = []

    def find() -> bytes:
        found.append(_find_vocabulary(experiment, workdir, pairs))
        sides = {side.digest(): side.to_bytes() for side in found[0]}  # one, where it is joint
        return json.dumps([b64encode(model).decode() for model in sides.values()]).encode()

    told = run_on_primary_and_broadcast(find)
    if not found:
        models = [read_tokenizer(b64decode(model)) for model in json.loads(told)]
        found.append(Vocabulary(models[0], models[-1]))
    return found[0]


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
    """The same experiment with what follows from others written out.

    Those are the model's vocabulary sizes, with a ready-made vocabulary its size, and where the
    text is. `old` is the experiment that is resumed: what had no effect in it stays as it was.
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


# Of the model that a run begins with, these are the run's own: they make no other model.
_OWN = ("dropout", "attention_dropout", "ff_dropout", "dtype", "remat")


def inherit_model_config(
    experiment: Experiment, begun: Experiment | None, given: Collection[str] = ()
) -> Experiment:
    """The experiment with the model and vocabulary of the run that it begins from, where it does.

    And with that one's search settings, where it has none of its own: neither another value than
    the default, nor one among those that flags set, `given`. Once it saved a checkpoint these are
    those that it has `begun` with, and the other run is not needed any more. Raises ConfigError.
    """
    if not experiment.init_from:
        return experiment
    source = Path(experiment.init_from)
    theirs = begun or read_config(source, "config.init_from")
    if not begun and not has_checkpoint(source):
        raise ConfigError(f"--config.init_from={source} has no checkpoint to begin with")
    own = {name: getattr(experiment.model, name) for name in _OWN}
    search = theirs.search
    if experiment.search != SearchConfig() or any(name.startswith("search.") for name in given):
        # What outputs begin with belongs to the vocabulary.
        first = experiment.search.forced_bos_id or theirs.search.forced_bos_id
        search = replace(experiment.search, forced_bos_id=first)
    return replace(
        experiment,
        model=replace(theirs.model, **own),
        data=replace(experiment.data, **_vocabulary_settings(theirs, resumed=bool(begun))),
        search=search,
        init_from=str(source.absolute()),
    )


def _vocabulary_settings(theirs: Experiment, resumed: bool) -> dict:
    """What the data settings say of a vocabulary taken from another run."""
    if resumed:  # earlier versions wrote what the config said
        names = "tokenizer", "vocab_size", "shared_vocab", "tokenizer_path"
        return {name: getattr(theirs.data, name) for name in names}
    return {
        "tokenizer": theirs.data.tokenizer,
        "vocab_size": theirs.model.vocab_size,
        "shared_vocab": theirs.model.target_vocab_size is None,
        "tokenizer_path": "",
    }


def check_sizes(experiment: Experiment) -> None:
    """Raise ConfigError where a vocabulary's size is set on the model, which has no say in it."""
    for name in ("vocab_size", "target_vocab_size"):
        value = getattr(experiment.model, name)
        if value != getattr(TransformerConfig, name):
            raise ConfigError(
                f"config.model.{name}={value} follows from the vocabulary: set "
                "config.data.vocab_size (and config.data.shared_vocab) instead"
            )
