"""Resume rules: which settings may change, and what each change affects.

`RULES` is the single source; docs/checkpoints.md has the same table, and a test compares both with
the config tree.
"""

from enum import StrEnum
from typing import Any, NamedTuple

from experiments.config import Experiment
from experiments.config_io import flatten
from model import ConfigError


class Change(StrEnum):
    """The effect of a changed setting on a resumed run."""

    FREE = "free"
    ANNOUNCED = "free, announced"  # changes what the run computes or compares
    BATCHES = "needs `--allow_batch_change`"  # training continues as in `schedule_offset`
    REJECTED = "rejected"  # defines another run


class Rule(NamedTuple):
    """How a change of a setting is treated, and what it affects."""

    change: Change
    effect: str


_BLEU = "validation BLEU from here on, which `best` compares with that of earlier checkpoints"
_TABLE = (
    (
        "train.num_steps",
        Change.ANNOUNCED,
        "where training ends; without `optimizer.decay_steps`, where cosine and linear end",
    ),
    (
        "optimizer.decay_steps",
        Change.ANNOUNCED,
        "where cosine and linear end, and so the learning rate of all remaining steps",
    ),
    ("train.eval_bleu_sentences", Change.ANNOUNCED, _BLEU),
    (
        "search.beam_size search.penalty search.alpha search.stopping search.free_eos_at_limit "
        "search.min_length search.max_length search.max_length_offset search.no_repeat_ngrams "
        "search.allow_unknown search.renormalize search.forced_bos_id",
        Change.ANNOUNCED,
        _BLEU,
    ),
    (
        "data.tokens_per_batch data.packing data.num_buckets optimizer.grad_accum_steps",
        Change.BATCHES,
        "which pairs share a batch; training continues at the same fraction of its epoch",
    ),
    ("train.max_minutes", Change.FREE, "when training ends"),
    ("train.log_every", Change.FREE, "how often metrics are logged"),
    (
        "train.eval_every train.checkpoint_every train.keep_last train.keep_best",
        Change.FREE,
        "which checkpoints there are for `best` to choose from",
    ),
    (
        "train.max_consecutive_skips train.max_rollbacks train.spike_threshold",
        Change.FREE,
        "when a loss counts as diverged or as a spike, and what is done then",
    ),
    (
        "train.grace_seconds train.heartbeat_timeout_seconds train.stall_timeout_seconds",
        Change.FREE,
        "how long a run waits for a save, or for another process",
    ),
    (
        "train.chunked_loss mesh.data mesh.fsdp mesh.tensor",
        Change.FREE,
        "memory and speed; results up to rounding",
    ),
    (
        "data.path data.cache",
        Change.FREE,
        "where text is read from; its content is compared with a checksum",
    ),
    (
        "data.kind data.source_language data.target_language data.max_pairs data.seed",
        Change.REJECTED,
        "the text",
    ),
    (
        "data.tokenizer data.vocab_size data.shared_vocab data.tokenizer_path",
        Change.REJECTED,
        "the vocabulary",
    ),
    ("data.max_length data.max_ratio", Change.REJECTED, "which pairs are trained on"),
    (
        "model.vocab_size model.target_vocab_size model.encoder_layers model.decoder_layers "
        "model.d_model model.d_ff model.num_heads model.num_kv_heads model.d_k model.d_v "
        "model.norm model.norm_kind model.norm_epsilon model.embedding_norm model.positions "
        "model.position_offset model.max_length model.relative_num_buckets "
        "model.relative_max_distance model.activation model.attention_bias model.mlp_bias "
        "model.decoder_mixer model.tying model.scale_embedding model.output_bias",
        Change.REJECTED,
        "the model",
    ),
    (
        "model.dropout model.attention_dropout model.mlp_dropout model.dropout_bits "
        "model.transpose_down_projection model.dtype model.remat model.scan_layers "
        "model.attention_kernel",
        Change.REJECTED,
        "how the model is trained",
    ),
    (
        "optimizer.name optimizer.schedule optimizer.learning_rate optimizer.warmup_steps "
        "optimizer.b1 optimizer.b2 optimizer.epsilon optimizer.weight_decay optimizer.clip_norm "
        "optimizer.mu_dtype train.label_smoothing train.ema_decay train.seed",
        Change.REJECTED,
        "every update",
    ),
    (
        "lora.rank lora.alpha lora.projections init_from",
        Change.REJECTED,
        "what is trained, and from which weights",
    ),
)
RULES = {name: Rule(change, effect) for names, change, effect in _TABLE for name in names.split()}


def check_changes(old: Experiment, new: Experiment, allow_batch_change: bool, folder: str) -> None:
    """Raise ConfigError for the first change that is rejected; `folder` names the run's folder."""
    changed = _changed(old, new)
    # init_from first: it explains the other changes, since the whole model differs.
    for name in sorted(changed, key="init_from".__ne__):
        old_value, value = changed[name]
        rule = RULES[name].change
        if rule is Change.REJECTED or (rule is Change.BATCHES and not allow_batch_change):
            hint = ""
            if rule is Change.BATCHES:
                hint = ", or change the batches with --allow_batch_change"
            raise ConfigError(
                f"{folder} holds another run: its {name} is {old_value!r}, not {value!r}; choose "
                f"another folder{hint}"
            )


def resume_line(old: Experiment, new: Experiment, step: int) -> str:
    """Format the first message of a resumed run: its step, changed settings, and their effects."""
    changed = _changed(old, new)
    settings = ", ".join(f"{name}={value}" for name, (_, value) in changed.items())
    with_settings = f" with {settings}" if settings else ""
    if new.train.num_steps <= step:
        return f"no steps remain after step {step}: only the test is run again{with_settings}"
    effects = [_schedule_effect(old, new, step)]
    if any(RULES[name].effect == _BLEU for name in changed):
        effects.append(f"this changes {_BLEU.replace('`', '')}")
    suffix = "".join(f"; {effect}" for effect in effects if effect)
    return f"resuming at step {step}{with_settings}{suffix}"


def _changed(old: Experiment, new: Experiment) -> dict[str, tuple[Any, Any]]:
    """Changed settings with (old, new) values."""
    old_values, new_values = flatten(old), flatten(new)
    return {
        name: (old_values[name], value)
        for name, value in new_values.items()
        if old_values[name] != value
    }


def _schedule_effect(old: Experiment, new: Experiment, step: int) -> str:
    old_end, new_end = old.schedule_end, new.schedule_end
    if old_end == new_end or old_end is None or new_end is None:
        return ""
    verb = f"ended at step {old_end} and now ends" if old_end <= step else "ends"
    instead = "" if old_end <= step else f" instead of {old_end}"
    return (
        f"the learning-rate schedule {verb} at step {new_end}{instead}: "
        "the result is not that of an uninterrupted run"
    )
