"""Inputs of a training: text, vocabulary, token ids, batch schedule."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from data.batch import Batch
from data.batch_schedule import BatchSchedule
from data.corpus import open_corpus
from data.language import find_language
from data.pairs import SPLITS, Corpus, Some
from data.pipeline import (
    Shard,
    TokenPairs,
    eval_batches,
    filter_pairs,
)
from data.token_cache import text_digest, tokenize_cached
from data.vocabulary import Vocabulary, load_tokenizer, read_tokenizer
from decode.translate import Translator
from experiments.compilation_cache import cache_folder
from experiments.config import DataConfig, Experiment, SearchConfig
from experiments.console import bar, note
from experiments.workdir import read_config, saved
from model import ConfigError, TransformerConfig
from model.sharding import local_batch_shards, make_global_batch, num_batch_shards
from train.multihost import run_on_primary_and_broadcast


def open_split(experiment: Experiment, split: str) -> Corpus:
    """The experiment's pairs of one split."""
    data = experiment.data
    pairs = open_corpus(
        data.source,
        split,
        path=data.path,
        source_language=data.source_language,
        target_language=data.target_language,
        seed=data.seed,
    )
    return Some(pairs, data.max_pairs) if data.max_pairs else pairs


def sides(pairs: Corpus, count: int = 0) -> tuple[list[str], list[str]]:
    """Sources and references of `count` pairs, evenly spaced (0: all)."""
    count = min(count or len(pairs), len(pairs))
    some = [pairs[i * len(pairs) // count] for i in range(count)]
    return [pair[0] for pair in some], [pair[1] for pair in some]


def warn_unknown_language(language: str) -> None:
    """Report a target language that BLEU's tokenizer cannot be chosen by."""
    if find_language(language) is None:
        note(
            f"data.target_language={language} is not a language code: BLEU counts words between "
            "spaces (13a)"
        )


def build_translator(
    experiment: Experiment, model, params, vocabulary, mesh=None, shortlist=None
) -> Translator:
    """A translator with the experiment's own search settings."""
    options = experiment.search.options()
    return Translator(model, params, vocabulary, mesh, options, shortlist=shortlist)


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
    if saved(workdir):
        return Vocabulary.load(workdir)
    if experiment.init_from:
        return Vocabulary.load(experiment.init_from)
    if data.tokenizer_model:
        ready = [load_tokenizer(file) for file in data.tokenizer_model.split(",")]
        return Vocabulary(ready[0], ready[-1])
    note(f"learning a vocabulary of {data.vocab_size} from {len(pairs)} pairs")
    with bar("learning the vocabulary", None):
        return Vocabulary.learn(pairs, data.vocab_size, data.tokenizer, data.joint)


def resolve(experiment: Experiment, vocabulary: Vocabulary, old: Experiment | None) -> Experiment:
    """The same experiment with what follows from others written out.

    Those are the model's vocabulary sizes, with a ready-made vocabulary its size, and where the
    text is. `old` is the experiment that is resumed: what had no effect in it stays as it was.
    """
    model, data = experiment.model, experiment.data
    if not vocabulary.joint and model.tying == "all":
        raise ConfigError("data.joint=False needs model.tying=decoder or none: two vocabularies")
    size = vocabulary.source.vocab_size
    target = None if vocabulary.joint else vocabulary.target.vocab_size
    model = replace(model, vocab_size=size, target_vocab_size=target)
    if data.tokenizer_model:
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
    if not begun and not saved(source):
        raise ConfigError(f"--config.init_from={source} has no checkpoint to begin with")
    own = {name: getattr(experiment.model, name) for name in _OWN}
    search = theirs.search
    if experiment.search != SearchConfig() or any(name.startswith("search.") for name in given):
        # What outputs begin with belongs to the vocabulary.
        first = experiment.search.first or theirs.search.first
        search = replace(experiment.search, first=first)
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
        names = "tokenizer", "vocab_size", "joint", "tokenizer_model"
        return {name: getattr(theirs.data, name) for name in names}
    return {
        "tokenizer": theirs.data.tokenizer,
        "vocab_size": theirs.model.vocab_size,
        "joint": theirs.model.target_vocab_size is None,
        "tokenizer_model": "",
    }


def check_sizes(experiment: Experiment) -> None:
    """Raise ConfigError where a vocabulary's size is set on the model, which has no say in it."""
    for name in ("vocab_size", "target_vocab_size"):
        value = getattr(experiment.model, name)
        if value != getattr(TransformerConfig, name):
            raise ConfigError(
                f"config.model.{name}={value} follows from the vocabulary: set "
                "config.data.vocab_size (and config.data.joint) instead"
            )


@dataclass(frozen=True)
class Text:
    """An experiment's text as ids."""

    splits: dict[str, Corpus]
    pairs: dict[str, TokenPairs]
    plan: BatchSchedule  # of the training split
    digests: dict[str, str]  # of the training split's ids, and of the other splits' text

    def eval_batches(self, split: str, experiment: Experiment, mesh: Mesh) -> Iterator[Batch]:
        """The batches of a split's pairs on the mesh, but for the longer than `data.max_length`."""
        where = name_split(split, self.splits[split])
        kept, _ = filter_pairs(self.pairs[split], experiment.data.max_length, np.inf, where)
        rows = num_batch_shards(mesh)
        made = eval_batches(
            self.pairs[split],
            kept,
            tokens_per_batch=experiment.data.tokens_per_batch,
            multiple_of=rows,
            shard=Shard(local_batch_shards(mesh), rows),
        )
        return (make_global_batch(batch, mesh) for batch in made)


def read_text(
    experiment: Experiment,
    splits: dict[str, Corpus],
    vocabulary: Vocabulary,
    moved: Callable[[], None],
) -> Text:
    """Tokenise, filter and plan, the same on every mesh. Tells what it left."""
    data = experiment.data
    with bar("tokenising", sum(map(len, splits.values()))) as progress:

        def hear(count: int) -> None:
            progress(count)
            moved()

        folder = cache_folder("tokens") if data.cache else None
        pairs = {
            split: tokenize_cached(splits[split], vocabulary, folder, hear) for split in SPLITS
        }
    names = {split: name_split(split, splits[split]) for split in SPLITS}
    kept, report = filter_pairs(pairs["train"], data.max_length, data.max_ratio, names["train"])
    note(str(report))
    for split in SPLITS[1:]:
        used, _ = filter_pairs(pairs[split], data.max_length, np.inf, names[split])
        note(f"{split} loss over {len(used)} of {len(splits[split])} pairs")
    plan = BatchSchedule(
        pairs["train"],
        kept,
        experiment.train.seed,
        packed=data.packing,
        count=data.num_buckets,
        tokens_per_batch=data.tokens_per_batch,
        multiple_of=experiment.optimizer.accumulate,
    )
    note(f"{plan}; as many compilations of the train step at most")
    digests = {"text": pairs["train"].digest()}
    digests |= {f"{split}_text": text_digest(splits[split]) for split in SPLITS[1:]}
    return Text(splits, pairs, plan, digests)


def name_split(split: str, pairs: Corpus) -> str:
    """A split for messages, with its files if it has any."""
    files = " and ".join(dict.fromkeys(getattr(pairs, "files", None) or ()))
    return f"the {split} split" + f" ({files})" * bool(files)
