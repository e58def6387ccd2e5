"""What the commands make of a trained run: translations, scores, pictures."""

import base64
import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import fields
from xml.etree import ElementTree

import numpy as np
import pytest

from decode.options import SearchOptions
from experiments.report.plots.attention import draw
from tests.experiments.commands import ROOT, environment, heed, refused
from tests.xla_for_tests import xla_flags

pytestmark = pytest.mark.slow


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
    asked += "--require=Hund", "--max_length_offset=30"
    code, out, err = heed("translate", f"--workdir={workdir}", *asked, stdin=lines)
    assert code == 0, err
    first, empty, third, last, _ = out.split("\n")
    assert "zwei" in first and "rot" in first and empty == ""
    assert "Hund" in first and "Hund" in third and last.startswith("gr") and "Hund" in last
    greedy = "--method=greedy", "--alpha=0"
    code, greedy, _ = heed("translate", f"--workdir={workdir}", *greedy, stdin=lines)
    code, narrow, _ = heed("translate", f"--workdir={workdir}", "--beam_size=1", stdin=lines)
    assert greedy == narrow


def test_a_line_out_is_one_to_every_reader(run):
    prefix = "a\rb\x0bc\x0cd\x1ce\x85f\u2028g\u2029h\x1b[2J"
    args = f"--workdir={run[0]}", f"--prefix={prefix}", "--method=greedy", "--max_length_offset=99"
    code, out, err = heed("translate", *args, stdin="red cat\n\n")
    first, second = out.splitlines()
    # A file has the other characters as they are.
    assert code == 0 and first.startswith("a b c d e f g h\x1b[2J") and second == "", err
    code, out, err = heed("translate", *args, "--format=jsonl", "--stream", stdin="red cat\n")
    (line,) = out.splitlines()
    assert json.loads(line)["text"].startswith(prefix) and line.isprintable()
    told = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert told[-1]["text"].startswith(prefix) and all(map(str.isprintable, err.splitlines()))


def test_every_option_of_a_search_has_a_flag():
    # In a process of its own: benchmarks have flags of the same names.
    told = "import json; from experiments.search_flags import SEARCH as all_of_them; "
    told += "print(json.dumps({flag.name: flag.default for flag in all_of_them}))"
    command = [sys.executable, "-c", told]
    flags = json.loads(subprocess.check_output(command, env=environment(), cwd=ROOT))
    # What outputs begin with is the vocabulary's, which an import or a config knows.
    assert set(flags) == {field.name for field in fields(SearchOptions)} - {
        "banned",
        "forced_bos_id",
    }
    assert set(flags.values()) == {None}


def test_options_reach_the_search(run, tmp_path):
    """Each changes what is printed; together they are taken as well."""
    workdir, *_ = run
    lines = "red cat\ntwo dog one\ngreen dog\n"

    def translated(*args):
        code, out, err = heed("translate", f"--workdir={workdir}", *args, stdin=lines)
        assert code == 0, err
        return out, err

    drawn = "--method=sample", "--temperature=3", "--top_k=50", "--top_p=0.99", "--max_length=5"
    seeds = [translated(*drawn, f"--seed={seed}")[0] for seed in (1, 2, 1)]
    assert seeds[0] == seeds[2] != seeds[1]
    free, _ = translated("--format=jsonl")
    assert "Hund" in free
    args = (
        "--forbid=Hund",
        "--forbid=rot",
        f"--ensemble={workdir}:15",
        "--precision=int8",
        "--stream",
    )
    args += "--format=jsonl", "--n_best=2", "--penalty=none"
    args += "--num_groups=2", "--stopping=limit", "--no_repeat_ngrams=1", "--max_ratio=1"
    mixed, err = translated(*args)
    found = [json.loads(line) for line in mixed.splitlines()]
    assert all("Hund" not in f["text"] and "rot" not in f["text"] for f in found)
    for f in found:  # a float's shortest form, and no division by a length
        np.testing.assert_allclose(f["score"], sum(f["token_scores"]), atol=1e-4)
        for tokens in (each["tokens"] for each in f["n_best"]):
            assert len(set(tokens)) == len(tokens) <= len(f["source"])
    told = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert {t["line"] for t in told} == {1, 2, 3} and {t["segment"] for t in told} == {0}
    assert {t["line"]: t["text"] for t in told if t["done"]} == {
        number: f["text"] for number, f in enumerate(found, 1)
    }
    alone, _ = translated(*args[:2], *args[3:])
    first = lambda text: json.loads(text.splitlines()[0])["score"]  # noqa: E731
    assert abs(first(alone) - first(mixed)) > 1e-4  # the other model had its say


def test_a_model_may_be_split_over_devices(run):
    workdir, *_ = run
    args, lines = (f"--workdir={workdir}", "--format=jsonl"), "red cat\ntwo dog one\ngreen dog\n"
    code, alone, err = heed("translate", *args, stdin=lines)
    four = {"XLA_FLAGS": xla_flags(4)}
    shared = heed("translate", *args, "--fsdp=2", stdin=lines, env=four)
    assert code == shared[0] == 0, err + shared[2]
    for one, other in zip(alone.splitlines(), shared[1].splitlines(), strict=True):
        one, other = json.loads(one), json.loads(other)
        for name in "text", "tokens", "alignment":
            assert one[name] == other[name]
        np.testing.assert_allclose(one["token_scores"], other["token_scores"], atol=1e-4)


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
    assert {"sentences", "seconds", "tokens_per_second"} <= set(split) and split["sentences"] == 6
    files = f"--source={text}/test.en", f"--reference={text}/test.de"
    code, by_files, _ = heed("evaluate", f"--workdir={workdir}", *files)
    assert json.loads(by_files)["bleu"] == split["bleu"]
    code, greedy, _ = heed("evaluate", f"--workdir={workdir}", "--split=test", "--method=greedy")
    code, narrow, _ = heed("evaluate", f"--workdir={workdir}", "--split=test", "--beam_size=1")
    assert json.loads(greedy)["bleu"] == json.loads(narrow)["bleu"]


def test_checkpoints_are_scored_side_by_side(run):
    workdir, *_ = run
    names = ["last", "best", "average:2", "average:15+30", "30"]
    here = f"--workdir={workdir}", "--split=valid", f"--checkpoint={','.join(names)}"
    code, out, err = heed("evaluate", *here)
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert [f["checkpoint"] for f in found] == names
    assert found[0]["steps"] == found[4]["steps"] == [30]
    assert found[2]["steps"] == found[3]["steps"] == [15, 30]
    assert found[0]["chrf"] == found[4]["chrf"] and found[2]["chrf"] == found[3]["chrf"]
    mean = f"--workdir={workdir}", "--checkpoint=average:2"
    code, translated, _ = heed("translate", *mean, stdin="red cat\n")
    assert code == 0 and translated.count("\n") == 1
    assert "holds no ema" in refused("translate", here[0], "--checkpoint=ema", stdin="a\n")
    assert "average:9 needs 9 checkpoints but there are 2: raise train.keep_last" in refused(
        "translate", here[0], "--checkpoint=average:9", stdin="a\n"
    )


def test_attention_is_drawn(run, tmp_path):
    workdir, *_ = run
    args = f"--workdir={workdir}", "--text=two red dog", f"--output={tmp_path}/maps"
    code, out, err = heed("attention", *args)
    assert code == 0, err
    kinds = "encoder", "decoder", "cross"
    page = (tmp_path / "maps/attention.html").read_text("utf-8")
    shown = json.loads(
        re.search(r'<script type="application/json" id="data">(.*)</script>', page)[1]
    )
    assert shown["target"] == out.rstrip("\n") and list(shown["kinds"]) == [*kinds]
    for kind in kinds:
        assert (tmp_path / f"maps/{kind}.png").read_bytes()[:4] == b"\x89PNG"
        drawn = ElementTree.parse(tmp_path / f"maps/{kind}.svg")
        told = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
        own = shown["kinds"][kind]
        # Columns under each of two heads, rows beside the first.
        for piece in {*own["rows"], *own["columns"]}:
            expected = own["rows"].count(piece) + 2 * own["columns"].count(piece)
            assert told.count(piece) == expected, (kind, piece)
        weights = np.frombuffer(base64.b64decode(own["weights"]), np.uint8)
        weights = weights.reshape(own["layers"], own["heads"], len(own["rows"]), -1)
        np.testing.assert_allclose(weights.sum(-1), 255, atol=len(own["columns"]))


def test_a_picture_shows_any_piece_as_it_is(tmp_path):
    pieces = ["$x$", "<a>&", "_^{"]
    weights = np.eye(3)[None, None]
    draw(weights, pieces, pieces, tmp_path / "one")
    draw(weights, pieces, pieces, tmp_path / "two")
    for kind in "png", "svg":
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
    drawn = ElementTree.parse(tmp_path / "one.svg")
    told = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert told == [*pieces, *pieces, "layer 1, head 1"]
