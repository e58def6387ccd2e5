"""User errors are one-line messages and change no files."""

import re
import shutil

import pytest

from data.tokenizer import Tokenizer
from tests.experiments.commands import error_line, heed, train_args


def test_typos_get_suggestions(text, tmp_path):
    args = train_args(text, tmp_path / "no")
    line = error_line("train", *args, "--config.optimizer.warmup_step=1")
    assert "warmup_step is unknown: did you mean warmup_steps?" in line
    missing = "--config=experiments/configs/dem.py"
    assert "dem.py: no such file: did you mean demo.py?" in error_line("train", missing)
    assert "did you mean --workdir" in error_line("train", args[0], "--wrkdir=x")
    assert not (tmp_path / "no").exists()


def write_invalid_utf8(folder):
    lines = (folder / "train.de").read_bytes().split(b"\n")
    lines[2] = b"\xff\xfe"
    (folder / "train.de").write_bytes(b"\n".join(lines))


def remove_line(folder):
    lines = (folder / "train.de").read_text().splitlines(keepends=True)
    (folder / "train.de").write_text("".join(lines[:-1]))


BAD_DATA = {
    "counts": (remove_line, r"train.en has 120 lines, but .*train.de has 119"),
    "utf8": (write_invalid_utf8, r"train.de, line 3: not valid UTF-8"),
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
def test_invalid_data_is_named_and_nothing_is_written(case, text, tmp_path):
    corrupt, message = BAD_DATA[case]
    folder = tmp_path / "text"
    folder.mkdir()
    for file in text.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    corrupt(folder)
    assert re.search(message, error_line("train", *train_args(folder, tmp_path / "no")))
    assert not (tmp_path / "no").exists()


def test_invalid_training_settings_are_one_line_errors(run, text, tmp_path):
    workdir, *_ = run
    too_many = train_args(text, tmp_path / "no", "data.vocab_size=5000")
    assert "is more than the training text supports: at most" in error_line("train", *too_many)
    assert not (tmp_path / "no").exists()
    assert "model.d_ff is 64, not 96" in error_line(
        "train", *train_args(text, workdir, "model.d_ff=96")
    )
    (tmp_path / "file").write_text("")
    not_a_folder = train_args(text, tmp_path / "file")
    assert "is not a writable folder" in error_line("train", *not_a_folder)
    size = train_args(text, tmp_path / "no", "model.vocab_size=50")
    assert "follows from the vocabulary: set config.data.vocab_size" in error_line("train", *size)
    tokenizer = train_args(
        text, tmp_path / "no", "data.tokenizer_path=x", "data.shared_vocab=False"
    )
    assert "does not go with config.data.shared_vocab=False" in error_line("train", *tokenizer)
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    invalid_config = f"--config={tmp_path}/broken.py", f"--workdir={tmp_path}/no"
    assert "broken.py" in error_line("train", *invalid_config)
    assert "--config is missing" in error_line("train", f"--workdir={tmp_path}/no")
    assert "--config is empty: name" in error_line("train", "--config=", f"--workdir={tmp_path}/no")
    empty = error_line("train", *train_args(text, ""))
    assert empty == "heed: error: --workdir is empty: give it a value, or leave it out"
    separate = train_args(text, tmp_path / "no", "data.shared_vocab=False", "data.vocab_size=280")
    assert "data.shared_vocab=False needs model.tying" in error_line("train", *separate)
    row = "--config=experiments/configs/table3.py:B9", f"--workdir={tmp_path}/no"
    assert error_line("train", *row).startswith(
        "heed: error: Table 3 has no row 'B9'; choices: base, A1"
    )


@pytest.mark.slow
def test_invalid_uses_of_a_run_are_one_line_errors(run, tmp_path):
    workdir, *_ = run
    workdir_flag = f"--workdir={workdir}"
    assert "30" in error_line("translate", workdir_flag, "--checkpoint=17", stdin="a\n")
    assert "line 2: not valid UTF-8" in error_line("translate", workdir_flag, stdin=b"a\n\xff\n")
    long_text = "red cat\n" + "dog " * 10_000 + "\n"
    assert "line 2 has" in error_line(
        "translate", workdir_flag, "--long_input=error:256", stdin=long_text
    )
    assert "holds no run" in error_line("translate", f"--workdir={tmp_path}", stdin="a\n")
    (tmp_path / "three").write_text("a\nb\nc\n")
    three = f"--require_file={tmp_path}/three"
    assert "three has 3 lines, but the input has 1" in error_line(
        "translate", workdir_flag, three, stdin="a\n"
    )
    both_prefixes = "--prefix=a", f"--prefix_file={tmp_path}/three"
    assert "exclude each other" in error_line(
        "translate", workdir_flag, *both_prefixes, stdin="a\nb\nc\n"
    )
    greedy = "--require=Hund", "--method=greedy"
    assert "need --method=beam" in error_line("translate", workdir_flag, *greedy, stdin="a\n")
    assert "give either" in error_line("evaluate", workdir_flag)
    # Before the first checkpoint is evaluated, whose line of JSON would be on stdout.
    several = "--split=test", "--checkpoint=last,nope"
    assert "no checkpoint 'nope'" in error_line("evaluate", workdir_flag, *several)
    several = f"--workdir={tmp_path}", "--split=test", "--checkpoint=last,best"
    assert "holds no run" in error_line("evaluate", *several)
    messages = {
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
    for flag, message in messages.items():
        assert message in error_line("translate", workdir_flag, flag, stdin="a\n")
    assert "--n_best has no meaning here" in error_line(
        "evaluate", workdir_flag, "--split=test", "--n_best=2"
    )
    samples = "--split=test", "--method=sample", "--num_samples=5"
    assert "use --method=mbr, or --num_samples=1" in error_line("evaluate", workdir_flag, *samples)
    assert "--long_input=split:²" in error_line(
        "translate", workdir_flag, "--long_input=split:²", stdin="a\n"
    )
    assert "no checkpoint '²'; choose best" in error_line(
        "translate", workdir_flag, "--checkpoint=²", stdin="a\n"
    )
    assert "cannot be written to" in error_line(
        "translate", workdir_flag, f"--output={tmp_path}", stdin="a\n"
    )
    missing_folder = f"--output={tmp_path}/no/folder/out"
    assert "there is no folder" in error_line(
        "translate", workdir_flag, missing_folder, stdin="a\n"
    )
    line = error_line("translate", workdir_flag, "--output=/dev/full", stdin="red cat\n")
    assert "/dev/full: No space left on device" in line
    sentence = "--text=" + "dog " * 300, f"--output={tmp_path}/no"
    assert "--text has" in error_line("attention", workdir_flag, *sentence)
    (tmp_path / "file").touch()
    output = f"--output={tmp_path}/file/maps"
    line = error_line("attention", f"--workdir={tmp_path}", "--text=a", output)
    assert line == f"heed: error: {output}: {tmp_path}/file is not a writable folder"
    output = f"--output={tmp_path}/file/x.html"
    line = error_line("report", f"--workdir={tmp_path}", output)
    assert line == f"heed: error: {output}: there is no folder {tmp_path}/file"


def test_a_missing_config_or_changed_vocabulary_is_rejected(run, text, tmp_path):
    workdir, *_ = run
    for name in ("config.json", "tokenizer.model"):
        copy = tmp_path / name
        shutil.copytree(workdir, copy)
        if name == "config.json":
            (copy / name).unlink()
            assert "config.json is missing" in error_line("train", *train_args(text, copy))
        else:
            Tokenizer.train(["cat dog red two"] * 9, 290 - 14).save(copy / name)
            assert "not the one its checkpoints" in error_line("translate", f"--workdir={copy}")


@pytest.mark.parametrize(
    "command",
    "train translate evaluate score attention serve import_model export_model".split(),
)
def test_help_is_printed(command):
    code, out, err = heed(command, "--help")
    assert code in (0, 1) and f"python -m experiments.{command}" in out + err
    searches = command in ("translate", "evaluate", "attention", "serve")
    assert "--workdir" in out + err and ("--long_input" in out + err) == searches
    assert "Traceback" not in err
