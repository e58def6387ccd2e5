"""One experiment, whole: vocabulary, training, validation, and the test of the best checkpoint."""

import time
from pathlib import Path

import jax

from data.corpus import SPLITS
from data.pipeline import train_batches
from decode.bleu import score
from experiments import workdir as folders
from experiments.config import Experiment, OptimizerConfig
from experiments.console import bar, note
from experiments.preparation import (
    Text,
    check_sizes,
    find_vocabulary,
    make_translator,
    open_split,
    read_text,
    resolve,
    sides,
)
from model import Transformer
from model.sharding import batch_shards, make_mesh
from train.checkpoint import Checkpoints
from train.loop import Hook, checkpoint_hook, fit, total_metrics, validation_hook
from train.metrics import MetricsWriter, read_metrics
from train.optimizer import make_optimizer, make_schedule
from train.state import abstract_state, create_state
from train.step import compile_eval_step, compile_train_step


def train(experiment: Experiment, workdir: Path) -> dict:
    """Train (or go on training) in `workdir`; returns what the last line of the command says.

    All settings and all input are read and checked before anything is written, settings first.
    """
    begun = time.monotonic()
    check_sizes(experiment)
    folders.check_folder(workdir)
    mesh = make_mesh(*(getattr(experiment.mesh, axis) for axis in ("data", "fsdp", "tensor")))
    old = folders.read_config(workdir) if (workdir / "config.json").exists() else None
    _optimizer(experiment.optimizer, experiment.model.d_model, experiment.train.num_steps)

    splits = {split: open_split(experiment, split) for split in SPLITS}
    vocabulary = find_vocabulary(experiment, workdir, splits["train"])
    c = resolve(experiment, vocabulary, old)
    folders.check_same_run(workdir, c)
    model = Transformer(c.model)
    schedule, tx = _optimizer(c.optimizer, c.model.d_model, c.train.num_steps)
    ema = c.train.ema > 0
    abstract = abstract_state(model, tx, mesh, ema=ema)
    text = read_text(c, splits, vocabulary, batch_shards(mesh))

    workdir.mkdir(parents=True, exist_ok=True)
    if old is None:
        vocabulary.save(workdir)
    folders.write_config(workdir, c)
    params = sum(leaf.size for leaf in jax.tree.leaves(abstract.params))
    note(f"{params:,} parameters on a mesh of {dict(mesh.shape)}")

    with Checkpoints(workdir / "checkpoints", keep=c.train.keep) as checkpoints:
        before = 0.0
        if checkpoints.steps():
            state = checkpoints.restore("last", abstract)
            meta = checkpoints.meta("last")
            folders.check_vocabulary(workdir, vocabulary, meta)
            folders.check_text(workdir, text.digest, meta)
            before = meta["seconds"]
            note(f"going on from step {int(state.step)}")
        else:
            state = create_state(model, tx, jax.random.key(c.train.seed), mesh, ema=ema)
        step = int(state.step)
        age = before + time.monotonic() - begun
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
                    train_batches(text.pairs["train"], text.plan, step),
                    num_steps=c.train.num_steps,
                    hooks=_hooks(c, model, mesh, vocabulary, text, checkpoints),
                    schedule=schedule,
                    writer=writer,
                    log_every=c.train.log_every,
                    max_minutes=c.train.max_minutes,
                    seconds_before=age,
                )
                step = summary.step
                traced = len(step_fn.traced)
                note(f"stopped by {summary.stopped_by}; {traced} compilations of the train step")
            del state
            checkpoints.wait()
            tested = _test(c, workdir, checkpoints, text)
            return _summary(workdir, writer, tested, step, params) | {
                "seconds": round(before + time.monotonic() - begun, 1)
            }


def _optimizer(o: OptimizerConfig, d_model: int, num_steps: int):
    """The learning rate's course and the optimizer that follows it."""
    schedule = make_schedule(
        o.schedule,
        learning_rate=o.learning_rate,
        warmup_steps=o.warmup_steps,
        d_model=d_model,
        decay_steps=o.decay_steps or num_steps,
    )
    return schedule, make_optimizer(
        o.name,
        schedule,
        b1=o.b1,
        b2=o.b2,
        epsilon=o.epsilon,
        weight_decay=o.weight_decay,
        clip_norm=o.clip_norm,
    )


def _hooks(c: Experiment, model, mesh, vocabulary, text: Text, checkpoints) -> list[Hook]:
    """Validation loss, then BLEU of real beam search, then a checkpoint that knows both."""
    sources, references = sides(text.splits["valid"], c.train.bleu_sentences)
    translator = None

    def bleu(_step, state, _report) -> dict:
        nonlocal translator
        if translator is None:
            translator = make_translator(c, model, state.weights, vocabulary, mesh)
        with bar("validating", len(sources)) as progress:
            found = translator.with_params(state.weights).translate(sources, progress)
        measured = score(found, references, c.data.target_language)["bleu"]
        return {"bleu": measured, "bleu_sentences": len(sources)}

    def batches():
        return text.eval_batches("valid", c, batch_shards(mesh))

    meta = {"vocabulary": vocabulary.digest(), "text": text.digest}
    return [
        validation_hook(compile_eval_step(model, mesh), batches, c.train.eval_every),
        Hook("bleu", c.train.eval_every, bleu),
        checkpoint_hook(checkpoints, meta, (c.train.eval_every, c.train.checkpoint_every)),
    ]


def _test(c: Experiment, workdir: Path, checkpoints: Checkpoints, text: Text) -> dict:
    """Loss, BLEU and chrF of the best checkpoint on the test split, and which one that was."""
    best = folders.load(workdir, "best" if checkpoints.best_step() is not None else "last")
    sources, references = sides(text.splits["test"])
    translator = make_translator(c, best.model, best.params, best.vocabulary, best.mesh)
    with bar("testing", len(sources)) as progress:
        found = translator.translate(sources, progress)
    scores = score(found, references, c.data.target_language)
    evaluate = compile_eval_step(best.model, best.mesh)
    batches = text.eval_batches("test", c, batch_shards(best.mesh))
    total = total_metrics(evaluate, best.params, batches)
    return {"loss": total.to_dict()["loss"], **scores, "checkpoint": best.step}


def _summary(workdir: Path, writer: MetricsWriter, tested: dict, step: int, params: int) -> dict:
    """What the command's last line says; the test becomes an event, once."""
    best = tested["checkpoint"]
    events = read_metrics(workdir)
    valid = {e["step"]: e for e in events if e["split"] == "valid"}.get(best, {})
    if not any(e["split"] == "test" and e["checkpoint"] == best for e in events):
        writer.write(max(step, best), "test", tested)
    names = ("bleu", "chrf", "signature", "chrf_signature")
    return {
        "step": step,
        "params": params,
        "seconds": None,
        "valid": {name: valid.get(name) for name in ("loss", "bleu")},
        "test": {name: tested[name] for name in names},
    }
