"""A mistake is answered in one line, and nothing is lost by it."""

import re
import shutil

import pytest

from data.tokenizer import Tokenizer
from tests.experiments.commands import heed, refused, train_args


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
    "blank": (lambda f: (f / "valid.en").write_text("\n \n\n"), r"valid.en has only blank lines"),
    "too long": (
        lambda f: [(f / f"valid.{code}").write_text("dog " * 300 + "\n") for code in ("en", "de")],
        r"no pair of the valid split \(.*valid.en and .*valid.de\) can be used: 1 with over 256 "
        r"tokens \(raise --config.data.max_length\)$",
    ),
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


def test_mistakes_in_training_end_in_one_line(run, text, tmp_path):
    workdir, *_ = run
    too_many = train_args(text, tmp_path / "no", "data.vocab_size=5000")
    assert "is more than the training text supports: at most" in refused("train", *too_many)
    assert not (tmp_path / "no").exists()
    assert "model.d_ff is 64, not 96" in refused(
        "train", *train_args(text, workdir, "model.d_ff=96")
    )
    (tmp_path / "file").write_text("")
    nowhere = train_args(text, tmp_path / "file")
    assert "is not a folder that can be written to" in refused("train", *nowhere)
    size = train_args(text, tmp_path / "no", "model.vocab_size=50")
    assert "follows from the vocabulary: set config.data.vocab_size" in refused("train", *size)
    ready = train_args(text, tmp_path / "no", "data.tokenizer_path=x", "data.shared_vocab=False")
    assert "does not go with config.data.shared_vocab=False" in refused("train", *ready)
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    broken = f"--config={tmp_path}/broken.py", f"--workdir={tmp_path}/no"
    assert "broken.py" in refused("train", *broken)
    assert "--config is missing" in refused("train", f"--workdir={tmp_path}/no")
    assert "--config is empty: name" in refused("train", "--config=", f"--workdir={tmp_path}/no")
    empty = refused("train", *train_args(text, ""))
    assert empty == "heed: error: --workdir is empty: give it a value, or leave it out"
    two = train_args(text, tmp_path / "no", "data.shared_vocab=False", "data.vocab_size=280")
    assert "data.shared_vocab=False needs model.tying" in refused("train", *two)
    row = "--config=experiments/configs/table3.py:B9", f"--workdir={tmp_path}/no"
    assert refused("train", *row).startswith("heed: error: Table 3 has no row 'B9'; there")


@pytest.mark.slow
def test_mistakes_with_a_trained_run_end_in_one_line(run, tmp_path):
    workdir, *_ = run
    here = f"--workdir={workdir}"
    assert "30" in refused("translate", here, "--checkpoint=17", stdin="a\n")
    assert "line 2: not valid UTF-8" in refused("translate", here, stdin=b"a\n\xff\n")
    long = "red cat\n" + "dog " * 10_000 + "\n"
    assert "line 2 has" in refused("translate", here, "--long_input=error:256", stdin=long)
    assert "holds no run" in refused("translate", f"--workdir={tmp_path}", stdin="a\n")
    (tmp_path / "three").write_text("a\nb\nc\n")
    three = f"--require_file={tmp_path}/three"
    assert "three has 3 lines, but the input has 1" in refused(
        "translate", here, three, stdin="a\n"
    )
    again = "--prefix=a", f"--prefix_file={tmp_path}/three"
    assert "exclude each other" in refused("translate", here, *again, stdin="a\nb\nc\n")
    greedy = "--require=Hund", "--method=greedy"
    assert "need --method=beam" in refused("translate", here, *greedy, stdin="a\n")
    assert "give either" in refused("evaluate", here)
    bad = {
        "--alpha=nan": "--alpha=nan: nan is not a finite number",
        "--min_length=80": "line 1: --min_length=80 is more than its limit",
        "--n_best=2": "--n_best has no meaning with --format=text",
        "--seed=0": "--seed=0 has no meaning with --method=beam",
        "--attention": "--attention has no meaning with --format=text",
        "--forbid= ": "--forbid: ' ' cannot be spelled",
        "--ensemble=nowhere": "--ensemble=nowhere holds no run: ",
        "--fsdp=2": "--fsdp=2: mesh.data=-1, mesh.fsdp=2, mesh.tensor=1 does not fit 1 devices",
        f"--ensemble={workdir}:17": "--ensemble=",
    }
    for flag, message in bad.items():
        assert message in refused("translate", here, flag, stdin="a\n")
    assert "--n_best has no meaning here" in refused("evaluate", here, "--split=test", "--n_best=2")
    five = "--split=test", "--method=sample", "--num_samples=5"
    assert "use --method=mbr, or --num_samples=1" in refused("evaluate", here, *five)
    assert "--long_input=split:²" in refused("translate", here, "--long_input=split:²", stdin="a\n")
    assert "no checkpoint '²'; choose best" in refused(
        "translate", here, "--checkpoint=²", stdin="a\n"
    )
    assert "cannot be written to" in refused("translate", here, f"--output={tmp_path}", stdin="a\n")
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
            Tokenizer.train(["cat dog red two"] * 9, 290 - 14).save(copy / name)
            assert "not the one its checkpoints" in refused("translate", f"--workdir={copy}")


@pytest.mark.parametrize(
    "command",
    "train translate evaluate score attention serve import_model export_model".split(),
)
def test_help_reads_well(command):
    code, out, err = heed(command, "--help")
    assert code in (0, 1) and f"python -m experiments.{command}" in out + err
    searches = command in ("translate", "evaluate", "attention", "serve")
    assert "--workdir" in out + err and ("--long_input" in out + err) == searches
    assert "Traceback" not in err
