"""The commands as a user runs them: a tiny translator trained, used, resumed; mistakes answered."""

import json
import os
import pty
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data.tokenizer import Tokenizer
from experiments.config import default_config, to_experiment
from train.metrics import read_metrics

ROOT = Path(__file__).parent.parent.parent
WORDS = {"red": "rot", "green": "grün", "one": "eins", "two": "zwei", "cat": "Katze", "dog": "Hund"}
SMALL = """
    model.encoder_layers=1 model.decoder_layers=1 model.d_model=32 model.d_ff=64 model.num_heads=2
    model.dropout=0.0 data.source=text data.vocab_size=290 data.tokens_per_batch=400
    data.num_buckets=2 optimizer.schedule=constant optimizer.learning_rate=0.01
    optimizer.warmup_steps=5 train.num_steps=30 train.eval_every=15 train.checkpoint_every=15
    train.log_every=5 search.extra_length=5
""".split()


def heed(command, *args, stdin="", env=()):
    """Run `python -m experiments.<command>` as a user would; rc, stdout, stderr."""
    plain = dict(PYTHONPATH=str(ROOT), XLA_FLAGS="", JAX_PLATFORMS="cpu")
    env = os.environ | plain | dict(env)
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
    assert set(result["test"]) == {"bleu", "chrf", "signature", "chrf_signature"}
    assert result["test"]["signature"].startswith("nrefs:1") and result["seconds"] > 0
    assert {"config.json", "tokenizer.model", "checkpoints", "metrics.jsonl", "tensorboard"} <= {
        p.name for p in workdir.iterdir()
    }
    events = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    train = [e for e in events if e["split"] == "train"]
    assert [e["step"] for e in train] == [5, 10, 15, 20, 25, 30]
    assert train[-1]["loss"] < train[0]["loss"] - 1
    assert {e["step"] for e in events if e["split"] == "valid"} == {15, 30}
    assert all({"loss", "bleu", "seconds"} <= set(e) for e in events if e["split"] == "valid")
    (tested,) = (e for e in events if e["split"] == "test")
    assert tested["loss"] > 0 and tested["bleu"] == result["test"]["bleu"]
    assert "padding" in err and "compilations" in err and "dropped: 0 empty" in err
    assert "bleu" in err and re.search(r"time: .*bleu \d+%", err)
    assert any((workdir / "tensorboard").iterdir())


def test_the_best_checkpoint_is_tested(text, tmp_path, monkeypatch):
    """Its BLEU falls from validation to validation, so that the first is the best."""
    from experiments import run

    _, _, *values = train_args(text, tmp_path)
    tree = default_config()
    for name, value in (v.removeprefix("--config.").split("=") for v in values):
        group, name = name.split(".")
        kind = type(tree[group][name])
        tree[group][name] = kind(float(value)) if kind in (int, float) else value
    bleus = iter([50.0, 40.0, 30.0])
    words = dict(chrf=1.0, signature="s", chrf_signature="c")
    monkeypatch.setattr(run, "score", lambda *_: dict(bleu=next(bleus), **words))
    result = run.train(to_experiment(tree), tmp_path / "run")
    assert result["step"] == 30 and result["valid"]["bleu"] == 50.0
    assert result["test"]["bleu"] == 30.0
    (tested,) = (e for e in read_metrics(tmp_path / "run") if e["split"] == "test")
    assert tested["checkpoint"] == 15
    here = f"--workdir={tmp_path}/run", "--split=test"
    for which, step in ("last", 30), ("best", 15):
        code, out, _ = heed("evaluate", *here, f"--checkpoint={which}")
        assert code == 0 and json.loads(out)["checkpoint"] == step


def test_config_json_tells_the_commit_that_the_run_began_with(run, text, tmp_path):
    workdir, *_ = run
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True)
    found = json.loads((workdir / "config.json").read_text())["commit"]
    assert found is None if head.returncode else found.removesuffix("-dirty") == head.stdout.strip()


def test_it_trains_without_git(text, tmp_path):
    args = train_args(text, tmp_path / "run", "train.num_steps=2")
    env = {"PATH": "", "HOME": str(tmp_path)}
    code, _, err = heed("train", *args, env=env)
    assert code == 0, err
    assert json.loads((tmp_path / "run" / "config.json").read_text())["commit"] is None


def test_many_settings_at_once(text, tmp_path):
    """A mesh, bfloat16, accumulation and two ready-made vocabularies; then a longer run of it."""
    for side, language in ("source", "en"), ("target", "de"):
        lines = (text / f"train.{language}").read_text().splitlines()
        Tokenizer.learn(lines, 280).save(tmp_path / f"{side}.model")
    settings = f"""model.dtype=bfloat16 model.tying=decoder optimizer.accumulate=2 data.joint=False
        data.tokenizer_model={tmp_path}/source.model,{tmp_path}/target.model
        mesh.fsdp=2 mesh.tensor=2 optimizer.schedule=cosine optimizer.warmup_steps=1""".split()
    args = train_args(text, tmp_path / "run", *settings)
    four = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    code, _, err = heed("train", *args, "--config.train.num_steps=4", env=four)
    assert code == 0, err
    assert "{'data': 1, 'fsdp': 2, 'tensor': 2}" in err
    shapes = int(re.search(r"in (\d+) shapes", err)[1])
    assert 1 <= int(re.search(r"; (\d+) compilations of the train step", err)[1]) <= shapes
    code, _, err = heed("train", *args, "--config.train.num_steps=6", env=four)
    assert code == 0 and "going on from step 4" in err, err
    for side in "source", "target":
        own = tmp_path / "run" / f"tokenizer.{side}.model"
        assert own.read_bytes() == (tmp_path / f"{side}.model").read_bytes()


def test_the_vocabulary_is_learned_from_the_training_side_only(run, text, tmp_path):
    folder = tmp_path / "text"
    shutil.copytree(text, folder)
    for split in "valid", "test":
        for language in "en", "de":
            (folder / f"{split}.{language}").write_text("zebra zoo quux\n" * 6)
    assert heed("train", *train_args(folder, tmp_path / "run", "train.num_steps=1"))[0] == 0
    learned = [(w / "tokenizer.model").read_bytes() for w in (run[0], tmp_path / "run")]
    assert learned[0] == learned[1]


def test_typed_sentences_are_answered_one_by_one(run):
    workdir, *_ = run
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "experiments.translate", f"--workdir={workdir}"]
    env = dict(os.environ, PYTHONPATH=str(ROOT), XLA_FLAGS="", JAX_PLATFORMS="cpu")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=theirs, stdout=pipe, stderr=pipe, env=env, cwd=ROOT) as it:
        answers = []
        for line in b"red cat\n", b"\n", b"two dog\n":
            os.write(ours, line)
            answers.append(it.stdout.readline())  # would wait for ever if all were read first
        os.write(ours, b"\x04")
        assert it.wait(60) == 0
    _, expected, _ = heed("translate", f"--workdir={workdir}", stdin="red cat\n\ntwo dog\n")
    assert b"".join(answers).decode() == expected and answers[1] == b"\n"


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
    (tmp_path / "asked").write_text("zwei\trot\n\n\n\n")
    (tmp_path / "begin").write_text("\n\n\ngr\n")
    asked = f"--require_file={tmp_path}/asked", f"--prefix_file={tmp_path}/begin"
    asked += "--require=Hund", "--extra_length=30"
    code, out, err = heed("translate", f"--workdir={workdir}", *asked, stdin=lines)
    assert code == 0, err
    first, empty, third, last, _ = out.split("\n")
    assert "zwei" in first and "rot" in first and empty == ""
    assert "Hund" in first and "Hund" in third and last.startswith("gr") and "Hund" in last
    greedy = "--method=greedy", "--alpha=0"
    code, greedy, _ = heed("translate", f"--workdir={workdir}", *greedy, stdin=lines)
    code, narrow, _ = heed("translate", f"--workdir={workdir}", "--beam_size=1", stdin=lines)
    assert greedy == narrow


def test_options_reach_the_search(run, tmp_path):
    """Each changes what is printed; together they are taken as well."""
    workdir, *_ = run
    lines = "red cat\ntwo dog one\ngreen dog\n"

    def translated(*args):
        code, out, err = heed("translate", f"--workdir={workdir}", *args, stdin=lines)
        assert code == 0, err
        return out, err

    drawn = "--method=sample", "--temperature=3"
    seeds = [translated(*drawn, f"--seed={seed}")[0] for seed in (1, 2, 1)]
    assert seeds[0] == seeds[2] != seeds[1]
    free, _ = translated("--format=jsonl")
    assert "Hund" in free
    args = "--ban=Hund", "--ban=rot", f"--ensemble={workdir}:15", "--precision=int8", "--stream"
    args += "--format=jsonl", "--n_best=2", "--penalty=none"
    mixed, err = translated(*args)
    found = [json.loads(line) for line in mixed.splitlines()]
    assert all("Hund" not in f["text"] and "rot" not in f["text"] for f in found)
    for f in found:  # a float's shortest form, and no division by a length
        np.testing.assert_allclose(f["score"], sum(f["token_scores"]), atol=1e-4)
    told = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert {t["line"] for t in told} == {1, 2, 3} and {t["piece"] for t in told} == {0}
    assert {t["line"]: t["text"] for t in told if t["done"]} == {
        number: f["text"] for number, f in enumerate(found, 1)
    }
    alone, _ = translated(*args[:2], *args[3:])
    first = lambda text: json.loads(text.splitlines()[0])["score"]  # noqa: E731
    assert abs(first(alone) - first(mixed)) > 1e-4  # the other model had its say


def test_scores_of_what_was_translated_are_its_own(run, text, tmp_path):
    workdir, *_ = run
    source = "red cat\ntwo dog one\ngreen dog\n"
    args = "--format=jsonl", "--n_best=2", "--prefix=rot", "--penalty=none", "--attention"
    code, out, err = heed("translate", f"--workdir={workdir}", *args, stdin=source)
    assert code == 0 and "search shapes compiled: 1" in err, err
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == 3 and all(len(f["n_best"]) == 2 for f in found)
    assert all(f["text"].startswith("rot") and len(f["tokens"]) > 1 for f in found)
    for each in (e | {"source": f["source"]} for f in found for e in f["n_best"]):
        assert [t for _, t in each["alignment"]] == list(range(len(each["tokens"])))
        attention = np.array(each["attention"])
        assert attention.shape == (len(each["tokens"]), len(each["source"]))
        np.testing.assert_allclose(attention.sum(-1), 1.0, atol=0.01)
        assert [s for s, _ in each["alignment"]] == attention.argmax(-1).tolist()
    (tmp_path / "source").write_text(source)
    (tmp_path / "target").write_text("".join(f"{f['text']}\n" for f in found))
    files = f"--source={tmp_path}/source", f"--target={tmp_path}/target"
    code, out, err = heed("score", f"--workdir={workdir}", *files)
    assert code == 0, err
    for line, f in zip(out.splitlines(), found, strict=True):
        scores = json.loads(line)
        assert scores["tokens"] == len(scores["token_scores"]) and scores["perplexity"] > 1
        if scores["tokens"] == len(f["tokens"]):  # the text may have a shorter spelling
            np.testing.assert_allclose(scores["score"], f["score"], atol=1e-3)
    assert "unknown flag --beam_size" in refused("score", f"--workdir={workdir}", "--beam_size=2")
    few = refused("score", f"--workdir={workdir}", *files, "--max_tokens=2")
    assert "line 1 has" in few and "more than --max_tokens=2" in few
    (tmp_path / "target").write_text("rot\n")
    assert "has 3 lines, but" in refused("score", f"--workdir={workdir}", *files)


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
    (tmp_path / "three").write_text("a\nb\nc\n")
    three = f"--require_file={tmp_path}/three"
    assert "three has 3 lines, but the input has 1" in refused(
        "translate", here, three, stdin="a\n"
    )
    again = "--prefix=a", f"--prefix_file={tmp_path}/three"
    assert "exclude each other" in refused("translate", here, *again, stdin="a\nb\nc\n")
    greedy = "--require=Hund", "--method=greedy"
    assert "are for --method=beam" in refused("translate", here, *greedy, stdin="a\n")
    assert "give either" in refused("evaluate", here)
    bad = {
        "--alpha=nan": "--alpha=nan must be from -10 to 10",
        "--min_length=80": "line 1: --min_length=80 is more than its limit",
        "--n_best=2": "--n_best has no meaning with --format=text",
        "--seed=0": "--seed=0 has no meaning with --method=beam",
        "--attention": "--attention has no meaning with --format=text",
        "--ban= ": "--ban: ' ' cannot be spelled",
        "--ensemble=nowhere": "--ensemble=nowhere: ",
        f"--ensemble={workdir}:17": "--ensemble=",
    }
    for flag, message in bad.items():
        assert message in refused("translate", here, flag, stdin="a\n")
    assert "--n_best has no meaning here" in refused("evaluate", here, "--split=test", "--n_best=2")
    assert "--max_input=split:²" in refused("translate", here, "--max_input=split:²", stdin="a\n")
    assert "--checkpoint=²" in refused("translate", here, "--checkpoint=²", stdin="a\n")
    assert "cannot be written to" in refused("translate", here, f"--output={tmp_path}", stdin="a\n")
    (tmp_path / "file").write_text("")
    nowhere = train_args(text, tmp_path / "file")
    assert "is not a folder that can be written to" in refused("train", *nowhere)
    size = train_args(text, tmp_path / "no", "model.vocab_size=50")
    assert "follows from the vocabulary: set config.data.vocab_size" in refused("train", *size)
    ready = train_args(text, tmp_path / "no", "data.tokenizer_model=x", "data.joint=False")
    assert "does not go with config.data.joint=False" in refused("train", *ready)
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    broken = f"--config={tmp_path}/broken.py", f"--workdir={tmp_path}/no"
    assert "broken.py" in refused("train", *broken)
    assert "--config" in refused("train", f"--workdir={tmp_path}/no")
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


def test_a_run_that_saved_nothing_can_be_mended(run, text, tmp_path):
    options = text, tmp_path / "run", "data.vocab_size=280"
    diverging = train_args(*options, "optimizer.learning_rate=1e30")
    assert "training diverged" in refused("train", *diverging)
    assert heed("train", *train_args(*options, "train.num_steps=2"))[0] == 0
    workdir, *_ = run
    both = f"--workdir={workdir}", f"--ensemble={tmp_path}/run:2"
    assert f"/run:2 has another vocabulary than --workdir={workdir}: models of an" in refused(
        "translate", *both, stdin="a\n"
    )


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


@pytest.mark.parametrize("command", ["train", "translate", "evaluate", "score", "attention"])
def test_help_reads_well(command):
    code, out, err = heed(command, "--help")
    assert code in (0, 1) and f"python -m experiments.{command}" in out + err
    searches = command not in ("train", "score")
    assert "--workdir" in out + err and ("--max_input" in out + err) == searches
    assert "Traceback" not in err
