"""One experiment, whole: vocabulary, training, validation, and the test of the best checkpoint."""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import jax
from rich.console import Console
from rich.progress import Progress as Bar

from data.batch import Batch
from data.corpus import Source, open_source
from data.pipeline import BatchPlan, eval_batches, filter_pairs, tokenize, train_batches
from data.tokenizer import Tokenizer, Vocabulary
from decode.bleu import score
from decode.translate import Translator
from experiments import workdir as folders
from experiments.config import Experiment
from model import ConfigError, Transformer
from model.sharding import make_mesh
from train.checkpoint import Checkpoints
from train.loop import Hook, checkpoint_hook, fit, validation_hook
from train.metrics import MetricsWriter, read_metrics
from train.optimizer import make_optimizer, make_schedule
from train.state import abstract_params, abstract_state, create_state
from train.step import compile_eval_step, compile_train_step


def note(text: str) -> None:
    """A line for people."""
    print(text, file=sys.stderr, flush=True)


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, told of what is done; silent where that is no terminal."""
    console = Console(stderr=True)
    with Bar(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.advance(task, done)


def open_split(experiment: Experiment, split: str) -> Source:
    """The experiment's pairs of one split."""
    data = experiment.data
    return open_source(
        data.source,
        split,
        path=data.path,
        source_language=data.source_language,
        target_language=data.target_language,
        seed=data.seed,
    )


def make_translator(experiment: Experiment, model, params, vocabulary, mesh=None) -> Translator:
    """A translator with the experiment's own search settings."""
    search = experiment.search
    return Translator(
        model,
        params,
        vocabulary,
        mesh,
        beam_size=search.beam_size,
        alpha=search.alpha,
        extra_length=search.extra_length,
    )


def learn_vocabulary(experiment: Experiment, pairs: Source) -> Vocabulary:
    """The ready-made vocabulary if one is named, else one learned from `pairs`."""
    data = experiment.data
    if data.tokenizer_model:
        ready = Tokenizer.load(data.tokenizer_model)
        return Vocabulary(ready, ready)
    note(f"learning a vocabulary of {data.vocab_size} from {len(pairs)} pairs")
    return Vocabulary.learn(pairs, data.vocab_size, data.tokenizer, data.joint)


def with_vocabulary(experiment: Experiment, vocabulary: Vocabulary) -> Experiment:
    """The same experiment, its model as large as the vocabulary is."""
    if not vocabulary.joint and experiment.model.tying == "all":
        raise ConfigError("data.joint=False needs model.tying=decoder or none: two vocabularies")
    target = None if vocabulary.joint else vocabulary.target.vocab_size
    sizes = dict(vocab_size=vocabulary.source.vocab_size, target_vocab_size=target)
    return replace(experiment, model=replace(experiment.model, **sizes))


def with_decay(experiment: Experiment) -> Experiment:
    """The same experiment with `optimizer.decay_steps` written out, so that the course stays."""
    o = experiment.optimizer
    if o.schedule not in ("cosine", "linear") or o.decay_steps:
        return experiment
    return replace(experiment, optimizer=replace(o, decay_steps=experiment.train.num_steps))


def train(experiment: Experiment, workdir: Path) -> dict:
    """Train (or go on training) in `workdir`; returns what the last line of the command says.

    All input is read and checked before anything is written.
    """
    begun = time.monotonic()
    splits = {split: open_split(experiment, split) for split in ("train", "valid", "test")}
    old = (workdir / "config.json").exists()
    vocabulary = Vocabulary.load(workdir) if old else learn_vocabulary(experiment, splits["train"])
    experiment = with_decay(with_vocabulary(experiment, vocabulary))
    folders.check_same_run(workdir, experiment)
    c = experiment

    mesh = make_mesh(c.mesh.data, c.mesh.fsdp, c.mesh.tensor)
    model = Transformer(c.model)
    with bar("tokenising", len(splits["train"]) + len(splits["valid"])) as progress:
        pairs = tokenize(splits["train"], vocabulary, progress)
        valid_pairs = tokenize(splits["valid"], vocabulary, progress)
    kept, report = filter_pairs(pairs, c.data.max_length, c.data.max_ratio)
    valid_kept, _ = filter_pairs(valid_pairs, c.data.max_length, math.inf)
    rows = mesh.shape["data"] * mesh.shape["fsdp"]
    plan = BatchPlan(
        pairs,
        kept,
        c.train.seed,
        count=c.data.num_buckets,
        tokens_per_batch=c.data.tokens_per_batch,
        multiple_of=rows * c.optimizer.accumulate,
    )
    schedule = make_schedule(
        c.optimizer.schedule,
        learning_rate=c.optimizer.learning_rate,
        warmup_steps=c.optimizer.warmup_steps,
        d_model=c.model.d_model,
        decay_steps=c.optimizer.decay_steps,
    )
    tx = make_optimizer(
        c.optimizer.name,
        schedule,
        b1=c.optimizer.b1,
        b2=c.optimizer.b2,
        epsilon=c.optimizer.epsilon,
        weight_decay=c.optimizer.weight_decay,
        clip_norm=c.optimizer.clip_norm,
    )

    workdir.mkdir(parents=True, exist_ok=True)
    if not old:
        vocabulary.save(workdir)
    folders.write_config(workdir, c)
    ema = c.train.ema > 0
    params = sum(leaf.size for leaf in jax.tree.leaves(abstract_params(model, mesh)))
    note(f"{params:,} parameters on a mesh of {dict(mesh.shape)}; {report}")
    note(f"{plan}; as many compilations of the train step at most")
    note(f"validation loss over {len(valid_kept)} of {len(valid_pairs.source)} pairs")
    meta = {"vocabulary": vocabulary.digest(), "text": pairs.digest()}

    def valid_batches() -> Iterator[Batch]:
        options = dict(tokens_per_batch=c.data.tokens_per_batch, multiple_of=rows)
        return eval_batches(valid_pairs, valid_kept, **options)

    with Checkpoints(workdir / "checkpoints", keep=c.train.keep) as checkpoints:
        seconds_before = 0.0
        if checkpoints.steps():
            state = checkpoints.restore("last", abstract_state(model, tx, mesh, ema=ema))
            saved = checkpoints.meta("last")
            folders.check_vocabulary(workdir, vocabulary, saved)
            folders.check_text(workdir, meta["text"], saved)
            seconds_before = saved.get("seconds", 0.0)
            note(f"going on from step {int(state.step)}")
        else:
            state = create_state(model, tx, jax.random.key(c.train.seed), mesh, ema=ema)
        step = int(state.step)
        with MetricsWriter(workdir, step) as writer:
            if step < c.train.num_steps:
                step_fn = compile_train_step(
                    model,
                    tx,
                    mesh,
                    smoothing=c.train.label_smoothing,
                    accumulate=c.optimizer.accumulate,
                    ema_decay=c.train.ema,
                )
                state, summary = fit(
                    state,
                    step_fn,
                    train_batches(pairs, plan, step),
                    num_steps=c.train.num_steps,
                    hooks=[
                        validation_hook(
                            compile_eval_step(model, mesh), valid_batches, c.train.eval_every
                        ),
                        _bleu_hook(c, model, mesh, vocabulary, splits["valid"]),
                        checkpoint_hook(
                            checkpoints, meta, (c.train.eval_every, c.train.checkpoint_every)
                        ),
                    ],
                    schedule=schedule,
                    writer=writer,
                    log_every=c.train.log_every,
                    max_minutes=c.train.max_minutes,
                    seconds_before=seconds_before,
                )
                step = summary.step
                compilations = step_fn.jitted._cache_size()
                note(f"stopped by {summary.stopped_by}; {compilations} compilations of the step")
            del state
            return _final(c, workdir, checkpoints, writer, splits, params, step, begun)


def _bleu_hook(c, model, mesh, vocabulary, valid: Source) -> Hook:
    """BLEU of real beam search on the validation pairs."""
    sources, references = _sides(valid, c.train.bleu_sentences)
    translator = None

    def bleu(_step, state, _report) -> dict:
        nonlocal translator
        if translator is None:
            translator = make_translator(c, model, state.weights, vocabulary, mesh)
        with bar("validating", len(sources)) as progress:
            found = translator.with_params(state.weights).translate(sources, progress)
        return {"bleu": score(found, references, c.data.target_language)["bleu"]}

    return Hook("bleu", c.train.eval_every, bleu)


def _sides(pairs: Source, count: int = 0) -> tuple[list[str], list[str]]:
    """Sources and references of the first `count` pairs (0: all)."""
    some = list(islice((pairs[i] for i in range(len(pairs))), count or None))
    return [pair[0] for pair in some], [pair[1] for pair in some]


def _final(c, workdir, checkpoints, writer, splits, params, step, begun) -> dict:
    """Test the best checkpoint, and put together what is known of the run."""
    checkpoints.wait()
    best = folders.load(workdir, "best" if checkpoints.best_step() is not None else "last")
    sources, references = _sides(splits["test"])
    translator = make_translator(c, best.model, best.params, best.vocabulary, best.mesh)
    with bar("testing", len(sources)) as progress:
        found = translator.translate(sources, progress)
    scores = score(found, references, c.data.target_language)
    tested = {name: scores[name] for name in ("bleu", "chrf", "signature")}
    events = read_metrics(workdir)
    valid = {e["step"]: e for e in events if e["split"] == "valid"}.get(best.step, {})
    if not any(e["split"] == "test" and e["step"] == best.step for e in events):
        writer.write(max(step, best.step), "test", tested | {"checkpoint": best.step})
    seconds = checkpoints.meta("last").get("seconds", time.monotonic() - begun)
    return {
        "step": step,
        "params": params,
        "seconds": round(seconds, 1),
        "valid": {name: valid.get(name) for name in ("loss", "bleu")},
        "test": tested,
    }


def print_json(values: dict) -> None:
    """A line for programs."""
    print(json.dumps(values, ensure_ascii=False), flush=True)
