"""A run's page: whole HTML that needs nothing else, and numbers that others count alike."""

import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import hypothesis
import pytest
import sacrebleu
from hypothesis import assume, given
from hypothesis import strategies as st

from data.errors import DataError
from experiments.environment import record_start
from experiments.report.chart import Series, draw, drawable, thinned, ticks
from experiments.report.examples import worst_and_best
from experiments.report.lengths import by_length
from experiments.report.page import render, summarize
from experiments.report.record import read_run, read_runs
from experiments.report.settings import settings
from model import ConfigError
from model.sharding import make_mesh
from tests.experiments.commands import heed, refused
from train.metrics import read_metrics

VOID = {"meta", "line", "circle", "path", "polyline", "br", "hr", "img", "input", "link"}


class Page(HTMLParser):
    """The text of a page; every tag that is opened is closed, in its turn."""

    def __init__(self, page):
        super().__init__()
        self.open, self.text, self.tags, self.attributes = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID - {"path", "circle"} or tag in ("path", "circle"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)
        elif self.open:
            assert "url(" not in data and "@import" not in data


def words(page):
    return " ".join(" ".join(page.text).split())


def alone(page):
    """It refers to places in itself only, and runs nothing."""
    assert not {"script", "link", "img", "iframe", "object", "use", "image"} & set(page.tags)
    for name, value in page.attributes:
        assert name not in ("src", "srcset", "data", "action", "style") or "(" not in value
        assert name != "href" or value.startswith("#")
        assert not name.startswith("on") and "//" not in (value or "")


@pytest.fixture(scope="module")
def trained(run):
    return read_run(run[0])


def rows_of(folder):
    return [json.loads(line) for line in (folder / "translations.jsonl").read_text().splitlines()]


def test_a_training_leaves_its_page_and_what_it_translated(run, text):
    workdir, out, err = run
    assert "warning" not in err
    rows = rows_of(workdir)
    assert [row["source"] for row in rows] == (text / "test.en").read_text().splitlines()
    assert [row["reference"] for row in rows] == (text / "test.de").read_text().splitlines()
    told = json.loads(out.splitlines()[-1])["test"]
    hypotheses, references = ([row[side] for row in rows] for side in ("hypothesis", "reference"))
    assert sacrebleu.corpus_bleu(hypotheses, [references]).score == told["bleu"]
    page = Page((workdir / "report.html").read_text())
    alone(page)
    found = words(page)
    assert f"{told['bleu']:.1f}" in found and f"{told['chrf']:.1f}" in found
    assert all(row["hypothesis"] in found for row in rows)
    (start,) = map(json.loads, (workdir / "environment.jsonl").read_text().splitlines())
    for name in "date", "commit", "python", "platform", "device":
        assert start[name] is None or start[name] in found
    assert start["devices"] == 1 and f"jax {start['packages']['jax']}" in found
    for name in "Loss", "BLEU", "Learning rate", "Speed", "Padding":
        assert f"{name} over updates" in [v for k, v in page.attributes if k == "aria-label"]
    assert "Not measured" not in found


def test_points_tell_what_the_events_hold(trained):
    found = words(Page(render([trained])))
    valid = [event for event in read_metrics(trained.workdir) if event["split"] == "valid"]
    assert len(valid) == 2
    for event in valid:
        assert f"valid, {event['step']}: {event['loss']:.4g}" in found
    for event in (event for event in read_metrics(trained.workdir) if event["split"] == "train"):
        assert f"train, {event['step']}: {100 * event['padding_fraction']:.4g}" in found


HOSTILE = "</dd></style><script>alert(1)</script><img src=//x.example onerror=alert(1)> & \"'"


def test_no_control_character_is_in_the_page(trained):
    strange = "".join(map(chr, (*range(0x20), *range(0x7F, 0xA0), 0xD800, 0xFFFE, 0xFFFF)))
    row = dict(source=strange, reference="a" + strange, hypothesis=strange, score=-1.0)
    page = render([replace(trained, name=strange, translations=[row], corrupt=[strange])])
    assert page.encode() and not set(page) & set(strange) - {"\n"} and "\u241b" in page


def test_runs_beside_each_other_with_sentences_that_are_not_markup(trained):
    hostile = dict(source=HOSTILE, reference=HOSTILE, hypothesis=HOSTILE, score=-1.0)
    search = replace(trained.experiment.search, beam_size=7)
    model = replace(trained.experiment.model, d_ff=96)
    other = replace(
        trained,
        name="<b>&other",
        experiment=replace(trained.experiment, search=search, model=model),
        translations=[hostile, *trained.translations],
        corrupt=[HOSTILE],
        events=[*trained.events, {"step": 9, "split": "spike", "loss": None, "pairs": []}],
    )
    page = Page(render([trained, other]))
    alone(page)
    found = words(page)
    assert found.count(" ".join(HOSTILE.split())) == 4  # a warning, and the three of an example
    assert "1 loss spike." in found
    for name in trained.name, other.name:
        assert f"{name}, train" in found and f"{name}, valid" in found
    different = [s.name for s in settings([trained.experiment, other.experiment]) if s.differs]
    assert different == ["model.d_ff", "search.beam_size"]
    start = found.index("Differences between the runs")
    table = found[start : found.index("Other than the defaults")]
    assert re.search(r"model.d_ff 64 96 2048 search.beam_size 4 7 4", table)


def test_bleu_by_length_is_that_of_the_sentences_of_that_length(trained):
    rows = [
        dict(source=" ".join(["w"] * n), reference=f"{'a ' * n}z{n}", hypothesis=f"{'a ' * m}z{n}")
        for n, m in zip([*range(1, 30)] * 4, [3, 5, 9, 14, 2, 30, 8] * 17, strict=False)
    ]
    rows.append(dict(source="long, " * 400, reference="a b c d", hypothesis="a b c d e"))
    some = replace(trained, translations=[row | {"score": 0.0} for row in rows])
    none = replace(trained, translations=[])
    buckets = by_length([none, some])
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
    assert by_length([none, none]) == []


def test_the_worst_and_the_best_are_those_by_chrf(trained):
    texts = ["rot", "rote Katze", "grün", "zwei Hund", "eins zwei", "Katze rot zwei", "Hund"]
    rows = [dict(source=t, reference="rote Katze eins", hypothesis=t, score=0.0) for t in texts]
    measured = [sacrebleu.sentence_chrf(t, ["rote Katze eins"]).score for t in texts]
    order = sorted(range(len(texts)), key=lambda i: measured[i])
    worst, best = worst_and_best(replace(trained, translations=rows), most=3)
    assert [e.line - 1 for e in worst] == order[:3]
    assert [e.line - 1 for e in best] == order[:-4:-1]
    assert worst[0].chrf == measured[order[0]]
    few = worst_and_best(replace(trained, translations=rows[:3]))
    assert [len(each) for each in few] == [2, 1] and not set(few[0]) & set(few[1])


def test_the_command_lays_runs_over_each_other(run, tmp_path):
    second = tmp_path / "second"
    shutil.copytree(run[0], second)
    (second / "translations.jsonl").unlink()
    events = (second / "metrics.jsonl").read_text().splitlines()
    events[2] = events[2][:40]
    (second / "metrics.jsonl").write_text("\n".join(events[:-1]) + "\n" + events[-1][:30])
    page = tmp_path / "page.html"
    both = f"--workdir={run[0]}", second, f"--output={page}"
    code, out, err = heed("report", *both)
    assert code == 0 and out == f"{page}\n", err
    left_out = f"2 unusable lines were left out: lines 3, {len(events)}"
    assert f"warning: {second}/metrics.jsonl: {left_out}\n" in err
    assert f"{second} has no translations of its test split: --translate makes them" in err
    found = words(Page(page.read_text()))
    assert left_out in found and "Training report of 2 runs" in found
    assert not (second / "translations.jsonl").exists()
    code, out, err = heed("report", f"--workdir={second}", "--translate")
    assert code == 0 and out == f"{second}/report.html\n", err
    for mine, kept in zip(rows_of(second), rows_of(run[0]), strict=True):
        assert mine["score"] == pytest.approx(kept["score"], abs=1e-5)
        assert mine | {"score": 0} == kept | {"score": 0}


def test_what_is_no_run_is_named(run, tmp_path):
    assert "page.txt holds no run" in refused(
        "report", f"--workdir={run[0]}", tmp_path / "page.txt"
    )
    with pytest.raises(ConfigError, match="is named twice"):
        read_runs([run[0], run[0].parent / "." / run[0].name])
    shutil.copy(run[0] / "config.json", tmp_path)
    with pytest.raises(DataError, match="has no event yet"):
        read_run(tmp_path)
    twin = tmp_path / "other" / run[0].name
    shutil.copytree(run[0], twin)
    assert [r.name for r in read_runs([run[0], twin])] == [str(run[0]), str(twin)]


def test_help_reads_well():
    _, out, err = heed("report", "--help")
    assert "python -m experiments.report --workdir=DIR [DIR ...]" in out + err
    assert "]translate: Translate the test split" in out + err and "Traceback" not in err


def test_each_start_is_recorded_after_those_before_it(tmp_path):
    (tmp_path / "environment.jsonl").write_text('{"date": "earlier"}\n{"torn')
    record_start(tmp_path, make_mesh())
    lines = (tmp_path / "environment.jsonl").read_text().splitlines()
    assert lines[:2] == ['{"date": "earlier"}', '{"torn'] and json.loads(lines[2])["devices"] == 8


def test_a_summary_is_of_the_best_validation(trained):
    events = [
        {"step": 1, "split": "valid", "loss": 3.0, "bleu": 9.0},
        {"step": 2, "split": "valid", "loss": 2.0, "bleu": 9.0},
        {"step": 3, "split": "valid", "loss": 1.0, "bleu": 8.0},
        {"step": 4, "split": "train", "loss": None, "skipped_updates": 2.0},
    ]
    found = summarize(replace(trained, events=events))
    assert found.valid["step"] == 2 and found.test == {} and found.step == 4
    assert found.told == ["2 updates skipped"]
    page = words(Page(render([replace(trained, events=events, translations=[], starts=[])])))
    assert "Not measured" in page and "Not recorded" in page and "--translate" in page


@hypothesis.settings(deadline=None, derandomize=True)
@given(st.floats(-1e9, 1e9), st.floats(1e-5, 1e9), st.integers(2, 9))
def test_ticks_are_round_and_enclose(low, width, most):
    assume(width > 1e-6 * abs(low))  # closer numbers are told apart by their rounding alone
    found = ticks(low, low + width, most)
    high = low + width
    assert (
        found[0] <= low + 1e-9 * abs(low) + 1e-12 and found[-1] >= high - 1e-9 * abs(high) - 1e-12
    )
    assert 2 <= len(found) <= most + 1
    step = found[1] - found[0]
    assert all(abs(b - a - step) <= 1e-6 * step for a, b in zip(found, found[1:], strict=False))
    assert f"{step:.0e}"[0] in "125"


@hypothesis.settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=2000))
def test_what_is_drawn_stays_inside_and_keeps_its_peaks(values):
    points = list(enumerate(values))
    chart = draw("t", "x", "y", [Series("a", "train", 0, points)])
    (line,) = chart.lines
    places = [tuple(map(float, place.split(","))) for place in line.path.split()]
    assert all(59.9 <= x <= 446.1 and 13.9 <= y <= 228.1 for x, y in places)
    assert len(places) <= 502 and len(line.hovered) <= 61
    kept = [y for _, y in thinned(points, 500)]
    assert min(kept) == min(values) and max(kept) == max(values)


def test_a_run_whose_own_files_are_damaged_is_reported_without_the_damaged_lines(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    event = {"step": 31, "split": "train"}
    lines = {
        "metrics.jsonl": [
            '["step"]', '"step"', '{"step": 1}', json.dumps(event | {"step": "x"}),
            json.dumps(event | {"loss": float("inf")}), json.dumps(event | {"loss": [1]}),
            json.dumps(event | dict(loss=1e308, learning_rate=-1e308, padding_fraction=5e-324)),
            json.dumps(event | {"loss": -1e299, "tokens_per_second": 1e299, "seconds": 1e308}),
            json.dumps(event | {"split": "valid", "loss": 1e305, "bleu": 1e305}),
            json.dumps(event | {"split": "test", "bleu": None, "signature": None}),
            json.dumps(event | {"loss": 1})[:-2] + "9" * 4000 + "}", "[" * 50_000 + "]" * 50_000,
        ],
        "environment.jsonl": ['{"devices": 1}', '{"date": "today"}', '{"date": "x", "mesh": []}'],
        "translations.jsonl": [
            '{"source": "a", "reference": "b", "hypothesis": "\\ud800", "score": 0}',
            '{"source": "a", "reference": "b", "hypothesis": "c", "score": 1e308}',
        ],
    }  # fmt: skip
    for name, more in lines.items():
        with (folder / name).open("a") as file:
            file.writelines(f"{line}\n" for line in more)
    corrupt = read_run(folder)
    assert len(corrupt.starts) == 2 and len(corrupt.translations) == 7
    told = [line.removeprefix(f"{folder}/").partition(" were ")[0] for line in corrupt.corrupt]
    assert told[:2] == ["metrics.jsonl: 8 unusable lines", "environment.jsonl: 2 unusable lines"]
    assert told[2].startswith("translations.jsonl: 1 unusable line")
    page = render([corrupt])
    assert "nan" not in page and "inf" not in page.replace("info", "")
    found = words(Page(page))
    assert "today" in found and "? × unknown (unknown)" in found


def test_a_run_of_damaged_events_only_names_them(run, tmp_path):
    shutil.copy(run[0] / "config.json", tmp_path)
    (tmp_path / "metrics.jsonl").write_text("[]\n")
    with pytest.raises(DataError, match="nothing to report: .*: 1 unusable line was left out"):
        read_run(tmp_path)


@hypothesis.settings(deadline=None, derandomize=True)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False).filter(drawable), min_size=1))
@hypothesis.example([0.0, 5e-324])
@hypothesis.example([1.0, 1.0000000000000002])
@hypothesis.example([-9e299, 9e299])
def test_whatever_is_drawable_is_drawn(values):
    chart = draw("t", "x", "y", [Series("a", "train", 0, list(enumerate(values)))])
    places = [float(x) for place in chart.lines[0].path.split() for x in place.split(",")]
    assert all(map(math.isfinite, [*places, *(tick.at for tick in chart.y_ticks)]))
    assert all(len(tick.text) < 30 for tick in chart.y_ticks)
