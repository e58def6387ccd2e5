"""Commands for a trained run: translate, score, evaluate, attention."""

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
from experiments.report.plots.attention import plot_attention
from tests.experiments.commands import ROOT, environment, error_line, heed
from tests.xla_for_tests import xla_flags

pytestmark = pytest.mark.slow


def test_typed_sentences_are_translated_one_by_one(run):
    workdir, *_ = run
    terminal, stdin = pty.openpty()
    command = [sys.executable, "-m", "experiments.translate", f"--workdir={workdir}"]
    env = dict(os.environ, PYTHONPATH=str(ROOT), XLA_FLAGS="", JAX_PLATFORMS="cpu")
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=stdin, stdout=pipe, stderr=pipe, env=env, cwd=ROOT
    ) as process:
        answers = []
        for line in b"red cat\n", b"\n", b"two dog\n":
            os.write(terminal, line)
            answers.append(process.stdout.readline())  # would block if all lines were read first
        os.write(terminal, b"\x04")
        assert process.wait(60) == 0
    _, expected, _ = heed("translate", f"--workdir={workdir}", stdin="red cat\n\ntwo dog\n")
    assert b"".join(answers).decode() == expected and answers[1] == b"\n"


def test_output_lines_match_input_lines(run, tmp_path):
    workdir, *_ = run
    lines = "red cat\n\ntwo dog one\ngreen dog\n"
    code, out, err = heed("translate", f"--workdir={workdir}", stdin=lines)
    assert code == 0 and out.count("\n") == 4 and out.split("\n")[1] == "", err
    (tmp_path / "in").write_text(lines)
    files = f"--input={tmp_path}/in", f"--output={tmp_path}/out"
    code, stdout, _ = heed("translate", f"--workdir={workdir}", *files, "--checkpoint=30")
    assert code == 0 and stdout == ""
    assert (tmp_path / "out").read_text().count("\n") == 4
    (tmp_path / "phrases").write_text("zwei\trot\n\n\n\n")
    (tmp_path / "prefixes").write_text("\n\n\ngr\n")
    constraints = f"--require_file={tmp_path}/phrases", f"--prefix_file={tmp_path}/prefixes"
    constraints += "--require=Hund", "--max_length_offset=30"
    code, out, err = heed("translate", f"--workdir={workdir}", *constraints, stdin=lines)
    assert code == 0, err
    first, empty, third, last, _ = out.split("\n")
    assert "zwei" in first and "rot" in first and empty == ""
    assert "Hund" in first and "Hund" in third and last.startswith("gr") and "Hund" in last
    greedy = "--method=greedy", "--alpha=0"
    code, greedy, _ = heed("translate", f"--workdir={workdir}", *greedy, stdin=lines)
    code, beam_1, _ = heed("translate", f"--workdir={workdir}", "--beam_size=1", stdin=lines)
    assert greedy == beam_1


def test_output_lines_have_no_line_breaks(run):
    prefix = "a\rb\x0bc\x0cd\x1ce\x85f\u2028g\u2029h\x1b[2J"
    args = f"--workdir={run[0]}", f"--prefix={prefix}", "--method=greedy", "--max_length_offset=99"
    code, out, err = heed("translate", *args, stdin="red cat\n\n")
    first, second = out.splitlines()
    # A file has the other characters unchanged.
    assert code == 0 and first.startswith("a b c d e f g h\x1b[2J") and second == "", err
    code, out, err = heed("translate", *args, "--format=jsonl", "--stream", stdin="red cat\n")
    (line,) = out.splitlines()
    assert json.loads(line)["text"].startswith(prefix) and line.isprintable()
    stream = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert stream[-1]["text"].startswith(prefix) and all(map(str.isprintable, err.splitlines()))


def test_every_option_of_a_search_has_a_flag():
    # In a separate process: benchmarks have flags with the same names.
    program = "import json; from experiments.search_flags import SEARCH as all_of_them; "
    program += "print(json.dumps({flag.name: flag.default for flag in all_of_them}))"
    command = [sys.executable, "-c", program]
    flags = json.loads(subprocess.check_output(command, env=environment(), cwd=ROOT))
    # The forced BOS depends on the vocabulary: imports and configs set it.
    assert set(flags) == {field.name for field in fields(SearchOptions)} - {
        "banned",
        "forced_bos_id",
    }
    assert set(flags.values()) == {None}


def test_flags_have_an_effect_on_the_search(run, tmp_path):
    """Each option changes the output; they can be combined."""
    workdir, *_ = run
    lines = "red cat\ntwo dog one\ngreen dog\n"

    def translated(*args):
        code, out, err = heed("translate", f"--workdir={workdir}", *args, stdin=lines)
        assert code == 0, err
        return out, err

    sampling = "--method=sample", "--temperature=3", "--top_k=50", "--top_p=0.99", "--max_length=5"
    seeds = [translated(*sampling, f"--seed={seed}")[0] for seed in (1, 2, 1)]
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
    combined, err = translated(*args)
    results = [json.loads(line) for line in combined.splitlines()]
    assert len(results) == 3
    assert all("Hund" not in f["text"] and "rot" not in f["text"] for f in results)
    for f in results:  # the shortest float format, without length normalization
        np.testing.assert_allclose(f["score"], sum(f["token_scores"]), atol=1e-4)
        for tokens in (hypothesis["tokens"] for hypothesis in f["n_best"]):
            assert len(set(tokens)) == len(tokens) <= len(f["source"])
    stream = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert {t["line"] for t in stream} == {1, 2, 3} and {t["segment"] for t in stream} == {0}
    assert {t["line"]: t["text"] for t in stream if t["done"]} == {
        number: f["text"] for number, f in enumerate(results, 1)
    }
    without_ensemble, _ = translated(*args[:2], *args[3:])
    first_score = lambda text: json.loads(text.splitlines()[0])["score"]  # noqa: E731
    # The other model of the ensemble has an effect.
    assert abs(first_score(without_ensemble) - first_score(combined)) > 1e-4


def test_a_sharded_model_translates_like_one_device(run):
    workdir, *_ = run
    args, lines = (f"--workdir={workdir}", "--format=jsonl"), "red cat\ntwo dog one\ngreen dog\n"
    code, single, err = heed("translate", *args, stdin=lines)
    four_devices = {"XLA_FLAGS": xla_flags(4)}
    sharded = heed("translate", *args, "--fsdp=2", stdin=lines, env=four_devices)
    assert code == sharded[0] == 0, err + sharded[2]
    for expected, actual in zip(single.splitlines(), sharded[1].splitlines(), strict=True):
        expected, actual = json.loads(expected), json.loads(actual)
        for name in "text", "tokens", "alignment":
            assert expected[name] == actual[name]
        np.testing.assert_allclose(expected["token_scores"], actual["token_scores"], atol=1e-4)


def test_scores_of_translations_equal_those_of_the_search(run, text, tmp_path):
    workdir, *_ = run
    source = "red cat\ntwo dog one\ngreen dog\n"
    args = "--format=jsonl", "--n_best=2", "--prefix=rot", "--penalty=none", "--attention"
    code, out, err = heed("translate", f"--workdir={workdir}", *args, stdin=source)
    assert code == 0 and "search shapes compiled: 1" in err, err
    results = [json.loads(line) for line in out.splitlines()]
    assert len(results) == 3 and all(len(f["n_best"]) == 2 for f in results)
    assert all(f["text"].startswith("rot") and len(f["tokens"]) > 1 for f in results)
    for hypothesis in (e | {"source": f["source"]} for f in results for e in f["n_best"]):
        assert [t for _, t in hypothesis["alignment"]] == list(range(len(hypothesis["tokens"])))
        attention = np.array(hypothesis["attention"])
        assert attention.shape == (len(hypothesis["tokens"]), len(hypothesis["source"]))
        np.testing.assert_allclose(attention.sum(-1), 1.0, atol=0.01)
        assert [s for s, _ in hypothesis["alignment"]] == attention.argmax(-1).tolist()
    (tmp_path / "source").write_text(source)
    (tmp_path / "target").write_text("".join(f"{f['text']}\n" for f in results))
    files = f"--source={tmp_path}/source", f"--target={tmp_path}/target"
    code, out, err = heed("score", f"--workdir={workdir}", *files)
    assert code == 0, err
    for line, f in zip(out.splitlines(), results, strict=True):
        scores = json.loads(line)
        assert scores["tokens"] == len(scores["token_scores"]) and scores["perplexity"] > 1
        if scores["tokens"] == len(f["tokens"]):  # the text may have a shorter encoding
            np.testing.assert_allclose(scores["score"], f["score"], atol=1e-3)
    assert "unknown flag --beam_size" in error_line(
        "score", f"--workdir={workdir}", "--beam_size=2"
    )
    error = error_line("score", f"--workdir={workdir}", *files, "--max_tokens=2")
    assert "line 1 has" in error and "more than --max_tokens=2" in error
    (tmp_path / "target").write_text("rot\n")
    assert "has 3 lines, but" in error_line("score", f"--workdir={workdir}", *files)


def test_evaluate_agrees_with_training(run, text):
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
    code, beam_1, _ = heed("evaluate", f"--workdir={workdir}", "--split=test", "--beam_size=1")
    assert json.loads(greedy)["bleu"] == json.loads(beam_1)["bleu"]


def test_evaluate_compares_checkpoints(run):
    workdir, *_ = run
    names = ["last", "best", "average:2", "average:15+30", "30"]
    flags = f"--workdir={workdir}", "--split=valid", f"--checkpoint={','.join(names)}"
    code, out, err = heed("evaluate", *flags)
    assert code == 0, err
    results = [json.loads(line) for line in out.splitlines()]
    assert [f["checkpoint"] for f in results] == names
    assert results[0]["steps"] == results[4]["steps"] == [30]
    assert results[2]["steps"] == results[3]["steps"] == [15, 30]
    assert results[0]["chrf"] == results[4]["chrf"] and results[2]["chrf"] == results[3]["chrf"]
    average = f"--workdir={workdir}", "--checkpoint=average:2"
    code, translated, _ = heed("translate", *average, stdin="red cat\n")
    assert code == 0 and translated.count("\n") == 1
    assert "has no ema" in error_line("translate", flags[0], "--checkpoint=ema", stdin="a\n")
    assert "average:9 needs 9 checkpoints but only 2 exist: raise train.keep_last" in error_line(
        "translate", flags[0], "--checkpoint=average:9", stdin="a\n"
    )


def test_attention_is_plotted(run, tmp_path):
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
        svg = ElementTree.parse(tmp_path / f"maps/{kind}.svg")
        labels = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
        data = shown["kinds"][kind]
        # Column labels under both heads, row labels beside the first.
        for piece in {*data["rows"], *data["columns"]}:
            expected = data["rows"].count(piece) + 2 * data["columns"].count(piece)
            assert labels.count(piece) == expected, (kind, piece)
        weights = np.frombuffer(base64.b64decode(data["weights"]), np.uint8)
        weights = weights.reshape(data["layers"], data["heads"], len(data["rows"]), -1)
        np.testing.assert_allclose(weights.sum(-1), 255, atol=len(data["columns"]))


def test_an_attention_plot_shows_any_piece(tmp_path):
    pieces = ["$x$", "<a>&", "_^{"]
    weights = np.eye(3)[None, None]
    plot_attention(weights, pieces, pieces, tmp_path / "one")
    plot_attention(weights, pieces, pieces, tmp_path / "two")
    for kind in "png", "svg":
        assert (tmp_path / f"one.{kind}").read_bytes() == (tmp_path / f"two.{kind}").read_bytes()
    svg = ElementTree.parse(tmp_path / "one.svg")
    labels = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert labels == [*pieces, *pieces, "layer 1, head 1"]
