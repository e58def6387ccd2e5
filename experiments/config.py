"""Experiment config: a tree of frozen dataclasses, and its absl flags."""

import re
from dataclasses import asdict, dataclass, field, fields, is_dataclass

from decode.options import InputError, SearchOptions
from experiments.did_you_mean import did_you_mean
from model import ConfigError, TransformerConfig
from model.lora import PROJECTIONS


def _check_minimums(section, group: str, **minimums: int) -> None:
    for name, value in minimums.items():
        if getattr(section, name) < value:
            raise ConfigError(
                f"config.{group}.{name}={getattr(section, name)} must be at least {value}"
            )


_MAX_INT = 2**31 - 1  # steps, ids and sizes are int32 on devices
_MAXIMUMS = {  # of the other numbers; larger ones would end or spoil a run that has started
    **dict.fromkeys(("data.seed", "train.seed"), 2**32 - 1),  # JAX would drop higher bits
    "data.vocab_size": 1 << 24,
    **dict.fromkeys(("model.encoder_layers", "model.decoder_layers"), 1000),
    # Timers cannot wait much longer.
    "train.grace_seconds": 1e6,
    "train.heartbeat_timeout_seconds": 1e6,
    "train.stall_timeout_seconds": 1e6,
}


def _check_maximums(section, group: str) -> None:
    for name, value in vars(section).items():
        maximum = _MAXIMUMS.get(f"{group}.{name}", _MAX_INT if isinstance(value, int) else None)
        if maximum is not None and value is not None and value > maximum:
            raise ConfigError(f"config.{group}.{name}={value} must be at most {maximum:.0f}")


@dataclass(frozen=True)
class DataConfig:
    """Source of the text, vocabulary, and batching."""

    kind: str = "demo"  # demo, text, tsv, jsonl, or a TFDS name such as wmt14_translate/de-en
    path: str = ""  # the folder of local text, or of TFDS
    source_language: str = "en"
    target_language: str = "de"
    tokenizer: str = "bpe"  # or unigram
    vocab_size: int = 8000
    shared_vocab: bool = True  # one vocabulary for both languages
    tokenizer_path: str = ""  # ready-made SentencePiece model instead of learning one; or A,B
    tokens_per_batch: int = 25_000  # positions per side
    max_length: int = 256  # tokens per side, with EOS; longer pairs are dropped and counted
    max_ratio: float = 3.0  # of the lengths of the two sides
    packing: bool = True  # several pairs per row, and a single batch shape; without it:
    num_buckets: int = 6  # batch shapes by length; the train step is compiled for each
    cache: bool = True  # cache tokenized text in ~/.cache/heed, for later runs on the same text
    max_pairs: int = 0  # of each split, evenly spaced; 0: all
    seed: int = 0  # of the demo: determines the sentences in train, valid and test

    def __post_init__(self):
        _check_minimums(self, "data", vocab_size=5, tokens_per_batch=1, max_length=2, num_buckets=1)
        _check_minimums(self, "data", max_ratio=1, max_pairs=0)
        if self.tokenizer_path and self.shared_vocab == ("," in self.tokenizer_path):
            raise ConfigError(
                f"config.data.tokenizer_path={self.tokenizer_path} does not go with "
                f"config.data.shared_vocab={self.shared_vocab}: one file is shared, SOURCE,TARGET "
                "is not"
            )


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam and the learning-rate schedule; the defaults are the paper's."""

    name: str = "adam"  # or adamw
    schedule: str = "noam"  # the paper's; or inverse_sqrt, cosine, linear, constant
    learning_rate: float = 1.0  # a factor for the paper's schedule, else the peak
    warmup_steps: int = 4000
    decay_steps: int = 0  # where cosine and linear end; 0: at train.num_steps
    b1: float = 0.9
    b2: float = 0.98
    epsilon: float = 1e-9
    weight_decay: float = 0.0
    clip_norm: float = 0.0  # 0: no clipping
    mu_dtype: str = "float32"  # of the first moment; bfloat16 saves a quarter of Adam's memory
    grad_accum_steps: int = 1  # micro-batches per batch

    def __post_init__(self):
        _check_minimums(self, "optimizer", grad_accum_steps=1, decay_steps=0)
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(
                    f"config.optimizer.{name}={getattr(self, name)} must be in [0, 1)"
                )
        if self.epsilon <= 0:
            raise ConfigError(f"config.optimizer.epsilon={self.epsilon} must be above 0")


@dataclass(frozen=True)
class TrainConfig:
    """Length of training, evaluation and checkpoints, loss, and failure limits."""

    num_steps: int = 100_000
    max_minutes: float = 0.0  # of wall clock, including time before a resume; 0: no limit
    log_every: int = 100
    eval_every: int = 2000  # validation loss and BLEU
    checkpoint_every: int = 2000
    keep_last: int = 3  # last checkpoints
    keep_best: int = 1  # further checkpoints, those with the highest BLEU
    eval_bleu_sentences: int = 0  # of the validation set; 0: all
    label_smoothing: float = 0.1
    chunked_loss: bool = True  # compute logits in chunks of positions: less memory; not if the
    # mesh splits the vocabulary
    ema_decay: float = 0.0  # decay of the parameters' moving average; 0: none
    seed: int = 0
    max_consecutive_skips: int = 20  # updates without a finite gradient until the run diverged
    max_rollbacks: int = 0  # to an earlier checkpoint, with another data order; 0: stop
    spike_threshold: float = 8.0  # standard deviations above the mean loss; 0: log none
    grace_seconds: float = 30.0  # from SIGTERM to the exit, for saving
    heartbeat_timeout_seconds: float = 120.0  # without a heartbeat of a process: the others exit
    stall_timeout_seconds: float = 3600.0  # without progress of any process: all exit; 0: never

    def __post_init__(self):
        _check_minimums(self, "train", num_steps=1, log_every=1, eval_every=1, checkpoint_every=1)
        _check_minimums(self, "train", keep_last=1, keep_best=1)
        _check_minimums(
            self, "train", max_minutes=0, eval_bleu_sentences=0, label_smoothing=0, ema_decay=0
        )
        _check_minimums(self, "train", seed=0, max_consecutive_skips=1, max_rollbacks=0)
        _check_minimums(
            self,
            "train",
            spike_threshold=0,
            grace_seconds=0,
            heartbeat_timeout_seconds=1,
            stall_timeout_seconds=0,
        )
        for name in ("label_smoothing", "ema_decay"):
            if getattr(self, name) >= 1:
                raise ConfigError(f"config.train.{name}={getattr(self, name)} must be below 1")


@dataclass(frozen=True)
class LoraConfig:
    """LoRA adapters, trained instead of the model (model/lora.py)."""

    rank: int = 0  # 0: none, all parameters are trained
    alpha: float = 16.0  # the output of an adapter is scaled by alpha / rank
    projections: str = "query,value"  # also key, out, hidden, gate, feed_forward_out,
    # and candidate, forget of an SSRU

    def __post_init__(self):
        _check_minimums(self, "lora", rank=0)
        if self.alpha <= 0:
            raise ConfigError(f"config.lora.alpha={self.alpha} must be above 0")
        for name in self.names:
            if name not in PROJECTIONS:
                raise ConfigError(
                    f"config.lora.projections={self.projections}: {name!r} is unknown"
                    f"{did_you_mean(name, PROJECTIONS)}"
                )

    @property
    def names(self) -> tuple[str, ...]:
        """The projections as a tuple."""
        return tuple(name.strip() for name in self.projections.split(","))

    @property
    def scale(self) -> float:
        """Factor of an adapter's output."""
        return self.alpha / self.rank


@dataclass(frozen=True)
class SearchConfig:
    """Beam search in validation and test, and the defaults of translate."""

    beam_size: int = 4
    penalty: str = "gnmt"  # or average, none
    alpha: float = 0.6
    stopping: str = "full"  # or unbeaten, unbeatable, limit
    free_eos_at_limit: bool = False  # EOS at the length limit has no cost
    min_length: int = 1  # tokens with EOS
    max_length: int = 0  # 0: no limit except the next
    max_length_offset: int = 50  # an output has at most the source's tokens plus this
    no_repeat_ngrams: int = 0  # no N-gram occurs twice; 0: no such rule
    allow_unknown: bool = False  # outputs may have unknown words, which the text omits
    renormalize: bool = False  # log-probabilities over EOS and the tokens that stand for text
    forced_bos_id: int = 0  # the first id of outputs, for example a language code; 0: any

    def __post_init__(self):
        try:
            self.options()
        except InputError as error:
            raise ConfigError(name_search_settings(str(error))) from None

    def options(self) -> SearchOptions:
        """The search that these settings define."""
        return SearchOptions(**asdict(self))


def name_search_settings(message: str) -> str:
    """Replace the flags of `translate` in a message by the settings of the same names."""
    names = "|".join(field.name for field in fields(SearchConfig))
    return re.sub(rf"--({names})\b", r"config.search.\1", message)


@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; -1: the remaining devices."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


@dataclass(frozen=True)
class Experiment:
    """All settings of a run."""

    model: TransformerConfig = field(default_factory=TransformerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    init_from: str = ""  # workdir of a run that provides vocabulary, model and best weights

    def __post_init__(self):
        for group in fields(self):
            if is_dataclass(section := getattr(self, group.name)):
                _check_maximums(section, group.name)
        if self.model.positions == "learned" and self.model.max_length < self.data.max_length:
            raise ConfigError(
                f"config.data.max_length={self.data.max_length} is more than the number of "
                f"learned positions, model.max_length={self.model.max_length}"
            )
        if self.lora.rank and not self.init_from:
            raise ConfigError(
                f"config.lora.rank={self.lora.rank} adapts the model of another run: set "
                "config.init_from to its folder"
            )

    @property
    def schedule_end(self) -> int | None:
        """The step at which cosine and linear reach 0; None for schedules that never end."""
        if self.optimizer.schedule not in ("cosine", "linear"):
            return None
        return self.optimizer.decay_steps or self.train.num_steps
