"""Training reports: self-contained HTML, and scores equal to sacreBLEU's."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import sacrebleu

from data.errors import DataError
from experiments.environment import record_start
from experiments.report.examples import worst_and_best
from experiments.report.lengths import score_by_length
from experiments.report.page import render, summarize
from experiments.report.record import read_run, read_runs
from experiments.report.settings import settings
from model import ConfigError
from model.sharding import make_mesh
from tests.experiments.commands import error_line, heed
from tests.experiments.report_pages import Page, check_self_contained, words
from train.metrics import read_metrics


@pytest.fixture(scope="module")
def trained(run):
    return read_run(run[0])


def read_translations(folder):
    return [json.loads(line) for line in (folder / "translations.jsonl").read_text().splitlines()]


def test_training_writes_a_report_and_translations(run, text):
    workdir, out, err = run
    assert "warning" not in err
    rows = read_translations(workdir)
    assert [row["source"] for row in rows] == (text / "test.en").read_text().splitlines()
    assert [row["reference"] for row in rows] == (text / "test.de").read_text().splitlines()
    scores = json.loads(out.splitlines()[-1])["test"]
    hypotheses, references = ([row[side] for row in rows] for side in ("hypothesis", "reference"))
    assert sacrebleu.corpus_bleu(hypotheses, [references]).score == scores["bleu"]
    page = Page((workdir / "report.html").read_text())
    check_self_contained(page)
    text_of_page = words(page)
    assert f"{scores['bleu']:.1f}" in text_of_page and f"{scores['chrf']:.1f}" in text_of_page
    assert all(row["hypothesis"] in text_of_page for row in rows)
    (start,) = map(json.loads, (workdir / "environment.jsonl").read_text().splitlines())
    for name in "date", "commit", "python", "platform", "device":
        assert start[name] is None or start[name] in text_of_page
    assert start["devices"] == 1 and f"jax {start['packages']['jax']}" in text_of_page
    for name in "Loss", "BLEU", "Learning rate", "Speed", "Padding":
        assert f"{name} over updates" in [v for k, v in page.attributes if k == "aria-label"]
    assert "Not measured" not in text_of_page


def test_points_have_the_values_of_the_events(trained):
    page = words(Page(render([trained])))
    valid = [event for event in read_metrics(trained.workdir) if event["event"] == "valid"]
    assert len(valid) == 2
    for event in valid:
        assert f"valid, {event['step']}: {event['loss']:.4g}" in page
    for event in (event for event in read_metrics(trained.workdir) if event["event"] == "train"):
        assert f"train, {event['step']}: {100 * event['padding_fraction']:.4g}" in page


HOSTILE = "</dd></style><script>alert(1)</script><img src=//x.example onerror=alert(1)> & \"'"


def test_no_control_character_is_in_the_page(trained):
    controls = "".join(map(chr, (*range(0x20), *range(0x7F, 0xA0), 0xD800, 0xFFFE, 0xFFFF)))
    row = dict(source=controls, reference="a" + controls, hypothesis=controls, score=-1.0)
    page = render([replace(trained, name=controls, translations=[row], corrupt=[controls])])
    assert page.encode() and not set(page) & set(controls) - {"\n"} and "\u241b" in page


def test_a_report_of_two_runs_escapes_markup(trained):
    hostile = dict(source=HOSTILE, reference=HOSTILE, hypothesis=HOSTILE, score=-1.0)
    search = replace(trained.experiment.search, beam_size=7)
    model = replace(trained.experiment.model, d_ff=96)
    hostile_run = replace(
        trained,
        name="<b>&other",
        experiment=replace(trained.experiment, search=search, model=model),
        translations=[hostile, *trained.translations],
        corrupt=[HOSTILE],
        events=[*trained.events, {"step": 9, "event": "spike", "loss": None, "pairs": []}],
    )
    page = Page(render([trained, hostile_run]))
    check_self_contained(page)
    page_words = words(page)
    # Once in a warning, and three times in an example.
    assert page_words.count(" ".join(HOSTILE.split())) == 4
    assert "1 loss spike." in page_words
    for name in trained.name, hostile_run.name:
        assert f"{name}, train" in page_words and f"{name}, valid" in page_words
    different = [
        s.name for s in settings([trained.experiment, hostile_run.experiment]) if s.differs
    ]
    assert different == ["model.d_ff", "search.beam_size"]
    start = page_words.index("Differences between the runs")
    table = page_words[start : page_words.index("Non-default settings")]
    assert re.search(r"model.d_ff 64 96 2048 search.beam_size 4 7 4", table)


def test_scores_by_length_equal_those_of_the_bucket(trained):
    rows = [
        dict(source=" ".join(["w"] * n), reference=f"{'a ' * n}z{n}", hypothesis=f"{'a ' * m}z{n}")
        for n, m in zip([*range(1, 30)] * 4, [3, 5, 9, 14, 2, 30, 8] * 17, strict=False)
    ]
    rows.append(dict(source="long, " * 400, reference="a b c d", hypothesis="a b c d e"))
    translated = replace(trained, translations=[row | {"score": 0.0} for row in rows])
    untranslated = replace(trained, translations=[])
    buckets = score_by_length([untranslated, translated])
    assert [str(b) for b in buckets] == [
        "1 to 5", "6 to 10", "11 to 15", "16 to 20", "21 to 25", "26 and more",
    ]  # fmt: skip
    assert sum(b.scores[1].sentences for b in buckets) == len(rows)
    for bucket in buckets:
        last = bucket.last or 10**6
        count = lambda text: len(text.replace(",", " ,").split())  # noqa: E731
        inside = [row for row in rows if bucket.first <= count(row["source"]) <= last]
        sides = [row["hypothesis"] for row in inside], [[row["reference"] for row in inside]]
        assert bucket.scores[0] is None and bucket.scores[1].sentences == len(inside)
        assert bucket.scores[1].bleu == sacrebleu.corpus_bleu(*sides).score
        assert bucket.scores[1].chrf == sacrebleu.corpus_chrf(*sides).score
    assert score_by_length([untranslated, untranslated]) == []


def test_worst_and_best_examples_are_ranked_by_chrf(trained):
    texts = ["rot", "rote Katze", "grün", "zwei Hund", "eins zwei", "Katze rot zwei", "Hund"]
    rows = [dict(source=t, reference="rote Katze eins", hypothesis=t, score=0.0) for t in texts]
    scores = [sacrebleu.sentence_chrf(t, ["rote Katze eins"]).score for t in texts]
    order = sorted(range(len(texts)), key=lambda i: scores[i])
    worst, best = worst_and_best(replace(trained, translations=rows), count=3)
    assert [e.line - 1 for e in worst] == order[:3]
    assert [e.line - 1 for e in best] == order[:-4:-1]
    assert worst[0].chrf == scores[order[0]]
    disjoint = worst_and_best(replace(trained, translations=rows[:3]))
    assert [len(examples) for examples in disjoint] == [2, 1] and not set(disjoint[0]) & set(
        disjoint[1]
    )


def test_the_command_reports_several_runs(run, tmp_path):
    second = tmp_path / "second"
    shutil.copytree(run[0], second)
    (second / "translations.jsonl").unlink()
    events = (second / "metrics.jsonl").read_text().splitlines()
    events[2] = events[2][:40]
    (second / "metrics.jsonl").write_text("\n".join(events[:-1]) + "\n" + events[-1][:30])
    page = tmp_path / "page.html"
    arguments = f"--workdir={run[0]}", second, f"--output={page}"
    code, out, err = heed("report", *arguments)
    assert code == 0 and out == f"{page}\n", err
    skipped = f"2 unusable lines were skipped: lines 3, {len(events)}"
    assert f"warning: {second}/metrics.jsonl: {skipped}\n" in err
    assert f"{second} has no translations of its test split: --translate makes them" in err
    page_words = words(Page(page.read_text()))
    assert skipped in page_words and "Training report of 2 runs" in page_words
    assert not (second / "translations.jsonl").exists()
    code, out, err = heed("report", f"--workdir={second}", "--translate")
    assert code == 0 and out == f"{second}/report.html\n", err
    for row, expected in zip(read_translations(second), read_translations(run[0]), strict=True):
        assert row["score"] == pytest.approx(expected["score"], abs=1e-5)
        assert row | {"score": 0} == expected | {"score": 0}


def test_a_folder_without_a_run_is_an_error(run, tmp_path):
    assert "page.txt holds no run" in error_line(
        "report", f"--workdir={run[0]}", tmp_path / "page.txt"
    )
    with pytest.raises(ConfigError, match="is given twice"):
        read_runs([run[0], run[0].parent / "." / run[0].name])
    shutil.copy(run[0] / "config.json", tmp_path)
    with pytest.raises(DataError, match="has no event yet"):
        read_run(tmp_path)
    twin = tmp_path / "other" / run[0].name
    shutil.copytree(run[0], twin)
    assert [r.name for r in read_runs([run[0], twin])] == [str(run[0]), str(twin)]


def test_help():
    _, out, err = heed("report", "--help")
    assert "python -m experiments.report --workdir=DIR [DIR ...]" in out + err
    assert "]translate: Translate the test split" in out + err and "Traceback" not in err


def test_each_start_is_appended(tmp_path):
    (tmp_path / "environment.jsonl").write_text('{"date": "earlier"}\n{"torn')
    record_start(tmp_path, make_mesh())
    lines = (tmp_path / "environment.jsonl").read_text().splitlines()
    assert lines[:2] == ['{"date": "earlier"}', '{"torn'] and json.loads(lines[2])["devices"] == 8


def test_a_summary_has_the_best_validation(trained):
    events = [
        {"step": 1, "event": "valid", "loss": 3.0, "bleu": 9.0},
        {"step": 2, "event": "valid", "loss": 2.0, "bleu": 9.0},
        {"step": 3, "event": "valid", "loss": 1.0, "bleu": 8.0},
        {"step": 4, "event": "train", "loss": None, "skipped_updates": 2.0},
    ]
    summary = summarize(replace(trained, events=events))
    assert summary.valid["step"] == 2 and summary.test == {} and summary.step == 4
    assert summary.messages == ["2 updates skipped"]
    page = words(Page(render([replace(trained, events=events, translations=[], starts=[])])))
    assert "Not measured" in page and "Not recorded" in page and "--translate" in page
