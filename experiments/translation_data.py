"""Translation corpora: sentence pairs as token ids, and their batches."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jax.sharding import Mesh

from data.batch import Batch
from data.batch_schedule import BatchSchedule
from data.corpus import open_corpus
from data.pairs import SPLITS, Corpus, Subset
from data.pipeline import BatchShards, TokenPairs, eval_batches, filter_pairs, train_batches
from data.token_cache import text_digest, tokenize_cached
from data.vocabulary import Vocabulary
from experiments.compilation_cache import cache_folder
from experiments.config import DataConfig, Experiment
from experiments.console import log, progress_bar
from model.sharding import local_batch_shards, make_global_batch, num_batch_shards


def open_split(experiment: Experiment, split: str) -> Corpus:
    """Open the experiment's pairs of one split."""
    data = experiment.data
    pairs = open_corpus(
        data.kind,
        split,
        path=data.path,
        source_language=data.source_language,
        target_language=data.target_language,
        seed=data.seed,
    )
    return Subset(pairs, data.max_pairs) if data.max_pairs else pairs


def sources_and_references(pairs: Corpus, count: int = 0) -> tuple[list[str], list[str]]:
    """Return the sources and references of `count` evenly spaced pairs (0: all)."""
    count = min(count or len(pairs), len(pairs))
    subset = [pairs[i * len(pairs) // count] for i in range(count)]
    return [pair[0] for pair in subset], [pair[1] for pair in subset]


@dataclass(frozen=True)
class TranslationData:
    """Sentence pairs of all splits as token ids: the `TaskData` of translation."""

    config: DataConfig
    splits: Mapping[str, Corpus]
    pairs: dict[str, TokenPairs]
    schedule: BatchSchedule  # of the training split
    digests: dict[str, str]  # of the training split's ids, and of the other splits' text

    def train_batches(
        self, schedule: BatchSchedule, step: int, mesh: Mesh, multiple_of: int
    ) -> Iterator[Batch]:
        """The batches from `step` on; each process makes the rows of its devices."""
        batches = train_batches(
            self.pairs["train"], schedule, step, shard=_shard(mesh), multiple_of=multiple_of
        )
        return (make_global_batch(batch, mesh) for batch in batches)

    def eval_batches(self, split: str, mesh: Mesh) -> Iterator[Batch]:
        """Each pair of a split once, except those longer than `data.max_length`."""
        name = name_split(split, self.splits[split])
        indices, _ = filter_pairs(self.pairs[split], self.config.max_length, np.inf, name)
        batches = eval_batches(
            self.pairs[split],
            indices,
            tokens_per_batch=self.config.tokens_per_batch,
            multiple_of=num_batch_shards(mesh),
            shard=_shard(mesh),
        )
        return (make_global_batch(batch, mesh) for batch in batches)


def _shard(mesh: Mesh) -> BatchShards:
    return BatchShards(local_batch_shards(mesh), num_batch_shards(mesh))


def read_pairs(
    experiment: Experiment,
    splits: Mapping[str, Corpus],
    vocabulary: Vocabulary,
    on_progress: Callable[[], None] = lambda: None,
) -> TranslationData:
    """Tokenize, filter and schedule the pairs, independent of the mesh; report the dropped pairs.

    `on_progress` is called for every chunk of text. Raises DataError if no pair remains.
    """
    data = experiment.data
    with progress_bar("tokenizing", sum(map(len, splits.values()))) as progress:

        def count_pairs(count: int) -> None:
            progress(count)
            on_progress()

        folder = cache_folder("tokens") if data.cache else None
        pairs = {
            split: tokenize_cached(splits[split], vocabulary, folder, count_pairs)
            for split in SPLITS
        }
    names = {split: name_split(split, splits[split]) for split in SPLITS}
    indices, report = filter_pairs(pairs["train"], data.max_length, data.max_ratio, names["train"])
    log(str(report))
    for split in SPLITS[1:]:
        eval_indices, _ = filter_pairs(pairs[split], data.max_length, np.inf, names[split])
        log(f"{split} loss over {len(eval_indices)} of {len(splits[split])} pairs")
    schedule = BatchSchedule(
        pairs["train"],
        indices,
        experiment.train.seed,
        packed=data.packing,
        count=data.num_buckets,
        tokens_per_batch=data.tokens_per_batch,
        multiple_of=experiment.optimizer.grad_accum_steps,
    )
    log(f"{schedule}; the train step is compiled once per shape")
    digests = {"text": pairs["train"].digest()}
    digests |= {f"{split}_text": text_digest(splits[split]) for split in SPLITS[1:]}
    return TranslationData(data, splits, pairs, schedule, digests)


def name_split(split: str, pairs: Corpus) -> str:
    """Name of a split in messages, with its files if it has any."""
    files = " and ".join(dict.fromkeys(getattr(pairs, "files", None) or ()))
    return f"the {split} split ({files})" if files else f"the {split} split"
