"""Resume rules: every setting has one, and a resumed run follows it."""

import re
from dataclasses import asdict

import pytest

from experiments import resume_rules
from experiments.config import Experiment
from experiments.config_io import flatten, to_experiment
from experiments.resolve import inherit_model_config
from experiments.resume_rules import RULES, Change, check_changes, resume_line
from experiments.setup import schedule_and_optimizer
from experiments.workdir import read_config, write_config
from model import ConfigError
from tests.experiments.commands import ROOT
from train.optimizer import SCHEDULES

BASE = Experiment()
OTHER_VALUES = {  # for settings where value + 1 or `not value` is not valid
    "data.kind": "text",
    "data.path": "elsewhere",
    "data.source_language": "fr",
    "data.target_language": "fr",
    "data.tokenizer": "unigram",
    "data.tokenizer_path": "some.model",
    "model.num_heads": 4,
    "model.num_kv_heads": 4,
    "model.d_model": 256,
    "model.target_vocab_size": 37_000,
    "model.d_k": 32,
    "model.d_v": 32,
    "model.norm": "pre",
    "model.norm_kind": "rms",
    "model.positions": "rotary",
    "model.relative_num_buckets": 16,
    "model.activation": "gelu",
    "model.decoder_mixer": "ssru",
    "model.tying": "none",
    "model.dropout_bits": 32,
    "model.dropout": 0.2,
    "model.attention_dropout": 0.2,
    "model.mlp_dropout": 0.2,
    "model.dtype": "bfloat16",
    "model.attention_kernel": "plain",
    "model.remat": "full",
    "optimizer.name": "adamw",
    "optimizer.schedule": "constant",
    "optimizer.b1": 0.5,
    "optimizer.b2": 0.5,
    "optimizer.mu_dtype": "bfloat16",
    "train.label_smoothing": 0.2,
    "train.ema_decay": 0.2,
    "lora.projections": "query",
    "search.penalty": "none",
    "search.stopping": "limit",
    "init_from": "another",
}


def changed(**settings):
    """The default experiment with changed settings, by name."""
    tree = asdict(BASE)
    for name, value in settings.items():
        group, _, key = name.rpartition(".")
        (tree[group] if group else tree)[key] = value
    return to_experiment(tree)


def other_value(name):
    value = flatten(BASE)[name]
    if name in OTHER_VALUES:
        return OTHER_VALUES[name]
    return not value if isinstance(value, bool) else value + 1


COSINE = {"optimizer.schedule": "cosine", "optimizer.warmup_steps": 5}


def cosine(**settings):
    return changed(**COSINE | settings)


def test_every_setting_has_one_rule():
    listed = [name for names, *_ in resume_rules._TABLE for name in names.split()]
    assert sorted(listed) == sorted(flatten(BASE))


def test_the_documentation_has_the_same_table():
    page = (ROOT / "docs" / "checkpoints.md").read_text()
    rows = re.findall(r"^\| (`\w+.*) \| (.*) \| (.*) \|$", page, re.M)
    documented = [
        (name, change, effect)
        for names, change, effect in rows
        for name in re.findall(r"`([\w.]+)`", names)
    ]
    assert len(documented) == len({name for name, *_ in documented})
    assert {name: change_and_effect for name, *change_and_effect in documented} == {
        name: [rule.change.value, rule.effect] for name, rule in RULES.items()
    }


@pytest.mark.parametrize("name", RULES)
def test_a_changed_value_is_treated_by_its_rule(name):
    rule, value = RULES[name], other_value(name)
    needs = {"lora.rank": {"init_from": "run"}, "optimizer.decay_steps": COSINE}.get(name, {})
    old, new = changed(**needs), changed(**needs | {name: value})
    refusal = f"RUN holds another run: its {re.escape(name)} is .*; choose another folder"
    line = resume_line(old, new, 7)
    assert line.startswith(f"resuming at step 7 with {name}={value}") and "\n" not in line
    if rule.change is Change.REJECTED:
        for allowed in False, True:
            with pytest.raises(ConfigError, match=f"{refusal}$"):
                check_changes(old, new, allowed, "RUN")
        return
    if rule.change is Change.BATCHES:
        with pytest.raises(ConfigError, match=f"{refusal}, or change .* with --allow_batch_change"):
            check_changes(old, new, False, "RUN")
    check_changes(old, new, rule.change is Change.BATCHES, "RUN")
    # train.num_steps affects the schedule of cosine and linear, and the default has neither.
    announced = rule.change is Change.ANNOUNCED and name != "train.num_steps"
    assert ("; " in line) == announced


def test_init_from_is_the_first_difference_named():
    with pytest.raises(ConfigError, match="its init_from is '', not 'another'"):
        check_changes(BASE, changed(**{"init_from": "another", "model.d_ff": 8}), False, "RUN")


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_longer_run_has_a_positive_rate_and_reports_the_change(name):
    old, new = (
        changed(
            **{"optimizer.schedule": name, "optimizer.warmup_steps": 5, "train.num_steps": steps}
        )
        for steps in (30, 60)
    )
    check_changes(old, new, False, "RUN")
    before, after = (schedule_and_optimizer(experiment)[0] for experiment in (old, new))
    # Schedules take the number of earlier updates.
    rates = [float(after(step)) for step in range(30, 59)]
    assert min(rates) > 0 and rates == sorted(rates, reverse=True)
    line = resume_line(old, new, 30)
    if name in ("cosine", "linear"):
        assert float(before(30)) == 0.0
        assert line == (
            "resuming at step 30 with train.num_steps=60; the learning-rate schedule ended at step "
            "30 and now ends at step 60: the result is not that of an uninterrupted run"
        )
        assert "schedule ends at step 60 instead of 30: the" in resume_line(old, new, 20)
    else:
        assert line == "resuming at step 30 with train.num_steps=60"
        assert [float(before(step)) for step in range(59)] == [
            float(after(step)) for step in range(59)
        ]
    assert resume_line(new, new, 30) == "resuming at step 30"


def test_explicit_decay_steps_are_kept():
    old, new = (cosine(**{"train.num_steps": n, "optimizer.decay_steps": 50}) for n in (50, 60))
    assert resume_line(old, new, 50) == "resuming at step 50 with train.num_steps=60"


def test_a_complete_run_does_not_resume():
    """Its settings change nothing but its test."""
    old = cosine(**{"train.num_steps": 60})
    line = "no steps remain after step 60: only the test is run again"
    assert resume_line(old, old, 60) == line
    beam = cosine(**{"train.num_steps": 50, "search.beam_size": 8})
    assert resume_line(old, beam, 60) == f"{line} with train.num_steps=50, search.beam_size=8"


def test_a_search_flag_that_is_not_repeated_ends_with_its_start(tmp_path, capfd):
    """Search settings come from the command, and by default from the run in init_from."""
    source = tmp_path / "source"
    source.mkdir()
    write_config(source, changed(**{"search.alpha": 1.0, "search.forced_bos_id": 9}))
    command = changed(init_from=str(source))
    flags = {"search.beam_size": 8, "search.forced_bos_id": 5, "init_from": str(source)}
    previous = inherit_model_config(changed(**flags), read_config(source), flags)
    assert (previous.search.beam_size, previous.search.forced_bos_id) == (8, 5)
    resumed = inherit_model_config(command, previous)
    assert resumed.search == read_config(source).search
    line = resume_line(previous, resumed, 7)
    for setting in "search.beam_size=4", "search.alpha=1.0", "search.forced_bos_id=9":
        assert setting in line
    with_flag = inherit_model_config(command, previous, ["search.beam_size"])
    assert (with_flag.search.beam_size, with_flag.search.forced_bos_id) == (4, 9)
    assert capfd.readouterr().err == ""
    (source / "config.json").unlink()
    assert inherit_model_config(command, previous).search == previous.search
    assert "search settings that are not set now remain those of the last" in capfd.readouterr().err


def test_unused_decay_steps_are_rejected():
    with pytest.raises(ConfigError, match="decay_steps=9 has no effect with .*schedule=constant: "):
        schedule_and_optimizer(
            changed(**{"optimizer.schedule": "constant", "optimizer.decay_steps": 9})
        )
    with pytest.raises(ConfigError, match="train.num_steps=5 must be above .*warmup_steps=5: "):
        schedule_and_optimizer(cosine(**{"train.num_steps": 5}))
