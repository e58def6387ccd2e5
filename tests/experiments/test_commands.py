"""The commands as a user runs them: a tiny translator trained, used, resumed; mistakes answered."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent.parent
WORDS = {"red": "rot", "green": "grün", "one": "eins", "two": "zwei", "cat": "Katze", "dog": "Hund"}
SMALL = """
    model.encoder_layers=1 model.decoder_layers=1 model.d_model=32 model.d_ff=64 model.num_heads=2
    model.dropout=0.0 data.source=text data.vocab_size=290 data.tokens_per_batch=400
    data.num_buckets=2 optimizer.schedule=constant optimizer.learning_rate=0.01
    optimizer.warmup_steps=5 train.num_steps=30 train.eval_every=15 train.checkpoint_every=15
    train.log_every=5 search.extra_length=5
""".split()


def heed(command, *args, stdin=""):
    """Run `python -m experiments.<command>` in a folder of the user's; rc, stdout, stderr."""
    env = dict(os.environ, PYTHONPATH=str(ROOT), XLA_FLAGS="", JAX_PLATFORMS="cpu")
    done = subprocess.run(
        [sys.executable, "-m", f"experiments.{command}", *map(str, args)],
        input=stdin.encode() if isinstance(stdin, str) else stdin,
        capture_output=True,
        env=env,
        cwd=ROOT,
        timeout=300,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def refused(command, *args, stdin=""):
    """The one line of a mistake, which ends with status 1 and no traceback."""
    code, out, err = heed(command, *args, stdin=stdin)
    assert code == 1 and out == "", (code, out, err)
    (line,) = (line for line in err.splitlines() if line.startswith("heed: error: "))
    assert "Traceback" not in err
    return line


def train_args(data, workdir, *changes):
    config = "--config=experiments/configs/text.py"
    values = [f"--config.{c}" for c in (*SMALL, f"data.path={data}", *changes)]
    return config, f"--workdir={workdir}", *values


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    rng = np.random.default_rng(0)
    for split, count in ("train", 120), ("valid", 6), ("test", 6):
        rows = [rng.choice(list(WORDS), rng.integers(2, 6)) for _ in range(count)]
        for language, words in ("en", dict(zip(WORDS, WORDS, strict=True))), ("de", WORDS):
            lines = "".join(" ".join(words[w] for w in row) + "\n" for row in rows)
            (folder / f"{split}.{language}").write_text(lines)
    return folder


@pytest.fixture(scope="module")
def run(text, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "small"
    code, out, err = heed("train", *train_args(text, workdir))
    assert code == 0, err
    return workdir, out, err


def test_training_leaves_what_the_readme_says(run):
    workdir, out, err = run
    result = json.loads(out.splitlines()[-1])
    assert set(result) == {"step", "params", "seconds", "valid", "test"}
    assert result["step"] == 30 and set(result["valid"]) == {"loss", "bleu"}
    assert set(result["test"]) == {"bleu", "chrf", "signature"}
    assert {"config.json", "tokenizer.model", "checkpoints", "metrics.jsonl", "tensorboard"} <= {
        p.name for p in workdir.iterdir()
    }
    events = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    train = [e for e in events if e["split"] == "train"]
    assert [e["step"] for e in train] == [5, 10, 15, 20, 25, 30]
    assert train[-1]["loss"] < train[0]["loss"] - 1
    assert {e["step"] for e in events if e["split"] == "valid"} == {15, 30}
    assert sum(e["split"] == "test" for e in events) == 1
    assert "padding" in err and "compilations" in err and "dropped: 0 empty" in err
    assert "bleu" in err and re.search(r"time: .*bleu \d+%", err)
    assert any((workdir / "tensorboard").iterdir())


def test_lines_out_are_lines_in(run, tmp_path):
    workdir, *_ = run
    lines = "red cat\n\ntwo dog one\ngreen dog\n"
    code, out, err = heed("translate", f"--workdir={workdir}", stdin=lines)
    assert code == 0 and out.count("\n") == 4 and out.split("\n")[1] == "", err
    (tmp_path / "in").write_text(lines)
    files = f"--input={tmp_path}/in", f"--output={tmp_path}/out"
    code, nothing, _ = heed("translate", f"--workdir={workdir}", *files, "--checkpoint=30")
    assert code == 0 and nothing == ""
    assert (tmp_path / "out").read_text().count("\n") == 4
    code, greedy, _ = heed("translate", f"--workdir={workdir}", "--method=greedy", stdin=lines)
    code, narrow, _ = heed("translate", f"--workdir={workdir}", "--beam_size=1", stdin=lines)
    assert greedy == narrow


def test_evaluation_is_json_and_agrees_with_training(run, text):
    workdir, out, _ = run
    test = json.loads(out.splitlines()[-1])["test"]
    code, split, err = heed("evaluate", f"--workdir={workdir}", "--split=test")
    assert code == 0, err
    split = json.loads(split)
    assert {k: split[k] for k in test} == test
    assert {"sentences", "seconds", "tokens_per_s"} <= set(split) and split["sentences"] == 6
    files = f"--source={text}/test.en", f"--reference={text}/test.de"
    code, by_files, _ = heed("evaluate", f"--workdir={workdir}", *files)
    assert json.loads(by_files)["bleu"] == split["bleu"]
    code, greedy, _ = heed("evaluate", f"--workdir={workdir}", "--split=test", "--method=greedy")
    code, narrow, _ = heed("evaluate", f"--workdir={workdir}", "--split=test", "--beam_size=1")
    assert json.loads(greedy)["bleu"] == json.loads(narrow)["bleu"]


def test_attention_is_drawn(run, tmp_path):
    workdir, *_ = run
    args = f"--workdir={workdir}", "--text=two red dog", f"--output={tmp_path}/maps"
    code, _, err = heed("attention", *args)
    assert code == 0, err
    for kind in "encoder", "decoder", "cross":
        assert (tmp_path / "maps" / f"{kind}.png").read_bytes()[:4] == b"\x89PNG"


def test_a_run_goes_on_exactly_where_it_stopped(run, text, tmp_path):
    workdir, out, _ = run
    half = train_args(text, tmp_path / "half", "train.num_steps=15")
    assert heed("train", *half)[0] == 0
    code, resumed, err = heed("train", *train_args(text, tmp_path / "half"))
    assert code == 0 and "going on from step 15" in err, err

    def losses(folder):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return [(e["step"], e["loss"]) for e in map(json.loads, lines) if e["split"] == "train"]

    assert losses(tmp_path / "half") == losses(workdir)
    assert json.loads(resumed.splitlines()[-1])["test"] == json.loads(out.splitlines()[-1])["test"]


def test_a_run_does_not_go_on_with_other_text(run, text, tmp_path):
    workdir, folder = tmp_path / "run", tmp_path / "text"
    shutil.copytree(run[0], workdir)
    shutil.copytree(text, folder)
    lines = (folder / "train.de").read_text().splitlines(keepends=True)
    (folder / "train.de").write_text("".join([lines[1], lines[0], *lines[2:]]))
    changed = train_args(folder, workdir, "train.num_steps=40")
    assert "the training text is not the one" in refused("train", *changed)


def test_typos_are_answered_with_the_nearest_name(text, tmp_path):
    args = train_args(text, tmp_path / "no")
    line = refused("train", *args, "--config.optimizer.warmup_step=1")
    assert "warmup_step is unknown: did you mean warmup_steps?" in line
    missing = "--config=experiments/configs/dem.py"
    assert "dem.py: there is no such file: did you mean demo.py?" in refused("train", missing)
    assert "did you mean --workdir" in refused("train", args[0], "--wrkdir=x")
    assert not (tmp_path / "no").exists()


def broken_utf8(folder):
    lines = (folder / "train.de").read_bytes().split(b"\n")
    lines[2] = b"\xff\xfe"
    (folder / "train.de").write_bytes(b"\n".join(lines))


def one_line_less(folder):
    lines = (folder / "train.de").read_text().splitlines(keepends=True)
    (folder / "train.de").write_text("".join(lines[:-1]))


BAD_DATA = {
    "counts": (one_line_less, r"train.en has 120 lines, but .*train.de has 119"),
    "utf8": (broken_utf8, r"train.de, line 3: not valid UTF-8"),
    "empty": (lambda f: (f / "valid.en").write_text(""), r"valid.en is empty"),
    "missing": (lambda f: (f / "test.de").unlink(), r"test.de is missing"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_is_named_and_nothing_is_written(case, text, tmp_path):
    spoil, message = BAD_DATA[case]
    folder = tmp_path / "text"
    folder.mkdir()
    for file in text.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    spoil(folder)
    assert re.search(message, refused("train", *train_args(folder, tmp_path / "no")))
    assert not (tmp_path / "no").exists()


def test_other_mistakes_end_in_one_line(run, text, tmp_path):
    workdir, *_ = run
    too_many = train_args(text, tmp_path / "no", "data.vocab_size=5000")
    assert "is more than the training text supports: at most" in refused("train", *too_many)
    assert not (tmp_path / "no").exists()
    assert "model.d_ff is 64, not 96" in refused(
        "train", *train_args(text, workdir, "model.d_ff=96")
    )
    here = f"--workdir={workdir}"
    assert "30" in refused("translate", here, "--checkpoint=17", stdin="a\n")
    assert "line 2: not valid UTF-8" in refused("translate", here, stdin=b"a\n\xff\n")
    long = "red cat\n" + "dog " * 10_000 + "\n"
    assert "line 2 has" in refused("translate", here, "--max_input=refuse:256", stdin=long)
    assert "holds no run" in refused("translate", f"--workdir={tmp_path}", stdin="a\n")
    assert "give either" in refused("evaluate", here)
    two = train_args(text, tmp_path / "no", "data.joint=False", "data.vocab_size=280")
    assert "data.joint=False needs model.tying" in refused("train", *two)
    row = "--config=experiments/configs/table3.py:B9", f"--workdir={tmp_path}/no"
    assert refused("train", *row).startswith("heed: error: Table 3 has no row 'B9'; there")
    nowhere = f"--output={tmp_path}/no/folder/out"
    assert "there is no folder" in refused("translate", here, nowhere, stdin="a\n")
    full = refused("translate", here, "--output=/dev/full", stdin="red cat\n")
    assert "/dev/full: No space left on device" in full
    sentence = "--text=" + "dog " * 300, f"--output={tmp_path}/no"
    assert "--text has" in refused("attention", here, *sentence)


def test_a_vocabulary_or_configuration_of_another_run_is_refused(run, text, tmp_path):
    workdir, *_ = run
    for name in ("config.json", "tokenizer.model"):
        copy = tmp_path / name
        shutil.copytree(workdir, copy)
        if name == "config.json":
            (copy / name).unlink()
            assert "config.json is missing" in refused("train", *train_args(text, copy))
        else:
            Tokenizer.learn(["cat dog red two"] * 9, 290 - 14).save(copy / name)
            assert "not the one its checkpoints" in refused("translate", f"--workdir={copy}")


@pytest.mark.parametrize("command", ["train", "translate", "evaluate", "attention"])
def test_help_reads_well(command):
    code, out, err = heed(command, "--help")
    assert code in (0, 1) and f"python -m experiments.{command}" in out + err
    assert "--workdir" in out + err and ("--max_input" in out + err) == (command != "train")
    assert "Traceback" not in err
