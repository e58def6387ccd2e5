"""Sources read what is in the files, and say in one line what is wrong with them."""

import gzip
import importlib.util
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.corpus import open_corpus
from data.errors import DataError
from data.pairs import ParallelText, Subset
from data.text import read_lines

PAIRS = [
    ("A cat.", "Eine Katze."),
    ("  two\u2028lines \x0b\x85", "zwei\x0c Zeilen"),
    ("", "x y"),
    ("z", "z"),
]


def failure(kind, path, split="train", **languages):
    with pytest.raises(DataError) as error:
        open_corpus(kind, split, path=str(path), **languages)
    assert "\n" not in str(error.value)
    return str(error.value)


def write(folder, kind, end="\n", last="\n", pack=False, bom=b""):
    def put(name, lines):
        content = bom + (end.join(lines) + last).encode()
        if pack:
            name, content = f"{name}.gz", gzip.compress(content)
        (folder / name).write_bytes(content)

    if kind == "text":
        put("train.en", [pair[0] for pair in PAIRS])
        put("train.de", [pair[1] for pair in PAIRS])
    elif kind == "tsv":
        put("train.tsv", ["\t".join(pair) for pair in PAIRS])
    else:
        put("train.jsonl", [json.dumps({"en": s, "de": t, "id": 7}) for s, t in PAIRS])


@pytest.mark.parametrize("kind", ["text", "tsv", "jsonl"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"end": "\r\n", "last": "\r\n"},
        {"last": ""},
        {"pack": True},
        {"bom": b"\xef\xbb\xbf"},
    ],
)
def test_a_source_gives_the_pairs_of_its_files(kind, how, tmp_path):
    write(tmp_path, kind, **how)
    source = open_corpus(kind, "train", path=str(tmp_path))
    assert [source[i] for i in range(len(source))] == PAIRS
    for index in (-1, len(PAIRS)):
        with pytest.raises(IndexError):
            source[index]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r")),
                min_size=1), st.sampled_from(["\n", "\r\n"]), st.booleans())  # fmt: skip
def test_lines_end_at_line_feeds_only(tmp_path_factory, lines, end, finished):
    lines = ["first", *lines, "last"]
    path = tmp_path_factory.mktemp("lines") / "a"
    path.write_bytes((end.join(lines) + (end if finished else "")).encode())
    assert read_lines(path) == lines


def test_some_pairs_are_evenly_spaced():
    pairs = ParallelText([*"abcdefghij"], [*"ABCDEFGHIJ"])
    some = Subset(pairs, 4)
    assert [pair.source for pair in some] == [*"acfh"] and len(some) == 4
    assert [some.line(i) for i in range(4)] == [1, 3, 6, 8] and some.files is None
    filed = Subset(ParallelText([*"abcd"], [*"ABCD"], ("a.en", "a.de"), first=2), 2)
    assert [filed.line(i) for i in range(2)] == [2, 4] and filed.files == ("a.en", "a.de")
    assert [*Subset(pairs, 99)] == [*pairs] and len(Subset(ParallelText([], []), 3)) == 0
    with pytest.raises(IndexError):
        some[4]


@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_either_direction(kind, tmp_path):
    write(tmp_path, kind)
    languages = dict(source_language="de", target_language="en")
    source = open_corpus(kind, "train", path=str(tmp_path), **languages)
    assert [source[i] for i in range(len(source))] == [pair[::-1] for pair in PAIRS]


def test_files_by_name(tmp_path):
    write(tmp_path, "text")
    path = f"train={tmp_path}/train.de,{tmp_path}/train.en; valid={tmp_path}/x,{tmp_path}/y"
    assert open_corpus("text", "train", path=path)[0] == PAIRS[0][::-1]
    assert failure("text", path, "valid") == f"{tmp_path}/x is missing"
    assert "names no two files for the test split" in failure("text", path, "test")


def test_a_folder_may_have_an_equals_sign_in_its_name(tmp_path):
    folder = tmp_path / "train=1"
    folder.mkdir()
    write(folder, "text")
    assert len(open_corpus("text", "train", path=str(folder))) == len(PAIRS)


def test_tsv_columns_by_their_header(tmp_path):
    (tmp_path / "train.tsv").write_text("id\tde\tfr\ten\n7\tja\toui\tyes\n8\tnein\tnon\tno\n")
    source = open_corpus("tsv", "train", path=str(tmp_path), source_language="fr")
    assert [source[i] for i in range(len(source))] == [("oui", "ja"), ("non", "nein")]


def test_json_lines_of_translations_and_of_several_lines_a_sentence(tmp_path):
    row = {"translation": {"en": "one\ntwo", "de": "eins zwei"}}
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    assert open_corpus("jsonl", "train", path=str(tmp_path))[0] == ("one two", "eins zwei")


def test_line_counts_that_differ(tmp_path):
    (tmp_path / "train.en").write_text("a\nb\nc\n")
    (tmp_path / "train.de").write_text("a\nb")
    assert failure("text", tmp_path).startswith(
        f"{tmp_path}/train.en has 3 lines, but {tmp_path}/train.de has 2: "
    )


@pytest.mark.parametrize(("before", "line"), [(b"", 1), (b"a\nb\r\n", 3), (b"\xef\xbb\xbfa\n", 2)])
@pytest.mark.parametrize("bad", [b"\xff", b"x \xc3", b"\xed\xa0\x80"])
def test_invalid_utf8(before, line, bad, tmp_path):
    (tmp_path / "train.en").write_bytes(before + bad + b"\nz\n")
    (tmp_path / "train.de").write_text("a\n")
    assert failure("text", tmp_path).startswith(
        f"{tmp_path}/train.en, line {line}: not valid UTF-8"
    )


@pytest.mark.parametrize(("name", "content"), [
    ("train.en", b""), ("train.en.gz", b""), ("train.en.gz", gzip.compress(b"", mtime=0)),
])  # fmt: skip
def test_an_empty_file(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    (tmp_path / "train.de").write_text("a\n")
    assert failure("text", tmp_path) == f"{tmp_path}/{name} is empty"


def test_a_file_of_blank_lines(tmp_path):
    (tmp_path / "train.en").write_bytes(b"\n\n")
    (tmp_path / "train.de").write_text("a\n")
    assert failure("text", tmp_path) == f"{tmp_path}/train.en has only blank lines"


# A gzip file holds the time, which would give these cases other names in every test process.
FULL_SHARD = gzip.compress(b"a\n" * 99, mtime=0)


@pytest.mark.parametrize("content", [b"not gzip", FULL_SHARD[:-9], FULL_SHARD[:10] + b"\xff" * 30])
def test_a_broken_gzip_file(content, tmp_path):
    (tmp_path / "train.en.gz").write_bytes(content)
    (tmp_path / "train.de").write_text("a\n")
    assert failure("text", tmp_path).startswith(
        f"{tmp_path}/train.en.gz is not a whole gzip file: "
    )


@pytest.mark.parametrize("kind", ["text", "tsv", "jsonl"])
def test_a_missing_split_is_told_with_what_is_there(kind, tmp_path):
    write(tmp_path, kind)
    name = "valid.en" if kind == "text" else f"valid.{kind}"
    there = ", ".join(sorted(file.name for file in tmp_path.iterdir()))
    message = failure(kind, tmp_path, "valid")
    assert message.startswith(f"{tmp_path}/{name} is missing ") and message.endswith(there)
    assert failure(kind, tmp_path / "no") == f"data.path={tmp_path}/no is not a folder"
    assert failure(kind, "") == f"data.kind={kind} needs --config.data.path=DIR"


@pytest.mark.parametrize(("content", "reason"), [
    ("a\tb\na b\n", "line 2: 1 columns instead of 2"),
    ("a\tb\n\na\tb\n", "line 2: 1 columns instead of 2"),
    ("a\tb\tc\n", "line 1: 3 columns instead of 2"),
    ("de\ten\tfr\na\tb\tc\na\tb\n", "line 3: 2 columns instead of 3"),
    ("de\ten\n", "has nothing below its first line"),
])  # fmt: skip
def test_bad_tsv(content, reason, tmp_path):
    (tmp_path / "train.tsv").write_text(content)
    message = failure("tsv", tmp_path)
    assert message.startswith(f"{tmp_path}/train.tsv") and reason in message


@pytest.mark.parametrize(("row", "reason"), [
    ("{", "not JSON: "), ("9" * 5000, "not JSON: "), ("[" * 100000, "not JSON"),
    ("[1]", "not a JSON object"), ('{"translation": "x"}', "no text under the key 'en'"),
    ('{"en": "a"}', "no text under the key 'de'"), ('{"en": 1, "de": ""}', "under the key 'en'"),
    ('{"en": "\\ud800", "de": ""}', "half a surrogate pair in 'en'"),
])  # fmt: skip
def test_bad_json_lines(row, reason, tmp_path):
    (tmp_path / "train.jsonl").write_text(f'{{"en": "a", "de": "b"}}\n{row}\n')
    message = failure("jsonl", tmp_path)
    assert message.startswith(f"{tmp_path}/train.jsonl, line 2: ") and reason in message


@pytest.mark.parametrize("kind", ["tsv", "jsonl"])
@pytest.mark.parametrize("end", ["\n", "\n\n", "\r\n", " \n", "\n "])
def test_blank_lines_at_the_end_are_no_pairs(kind, end, tmp_path):
    write(tmp_path, kind)
    file = tmp_path / f"train.{kind}"
    file.write_bytes(file.read_bytes() + end.encode())
    source = open_corpus(kind, "train", path=str(tmp_path))
    assert [source[i] for i in range(len(source))] == PAIRS


@pytest.mark.parametrize("line", ["", " "])
def test_a_blank_line_of_json_amid_others_is_told(line, tmp_path):
    row = '{"en": "a", "de": "b"}'
    (tmp_path / "train.jsonl").write_text(f"{row}\n{line}\n{row}\n\n")
    assert failure("jsonl", tmp_path) == (
        f"{tmp_path}/train.jsonl, line 2: blank, but not at the end: remove it"
    )


def test_unknown_names_get_the_nearest():
    assert failure("txt", "x").endswith("did you mean text?")
    assert failure("demp", "x").endswith("did you mean demo?")
    assert failure("parquet", "x").endswith("a TFDS name such as wmt14_translate/de-en")
    message = failure("text", "x", "dev")
    assert message == "split='dev' is not one of: train, valid, test"


@pytest.fixture(scope="module")
def tfds_folder(tmp_path_factory):
    import tensorflow_datasets as tfds

    class ToyTranslate(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="de-en")]

        def _info(self):
            features = tfds.features.Translation(languages=("de", "en"))
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, _):
            return {"train": self._generate_examples(), "dev": self._generate_examples(1)}

        def _generate_examples(self, start=0):
            for i, (english, german) in enumerate(PAIRS[start:]):
                yield i, {"en": english, "de": german}

    folder = tmp_path_factory.mktemp("tfds")
    ToyTranslate(config="de-en", data_dir=folder, file_format="array_record").download_and_prepare()
    return str(folder)


def test_a_tfds_set_in_either_direction_without_tensorflow(tfds_folder):
    name = "toy_translate/de-en"
    source = open_corpus(name, "train", path=tfds_folder)
    assert [source[i] for i in range(len(source))] == PAIRS
    for index in (-1, len(PAIRS)):
        with pytest.raises(IndexError):
            source[index]
    languages = dict(source_language="de", target_language="en")
    assert open_corpus(name, "valid", path=tfds_folder, **languages)[0] == PAIRS[1][::-1]
    assert "tensorflow" not in sys.modules


def test_what_a_tfds_set_lacks(tfds_folder):
    name = "toy_translate/de-en"
    assert (
        failure(name, tfds_folder, "test") == f"TFDS set {name} has no test split, only: train, dev"
    )
    assert "has no 'fr', only: de, en" in failure(name, tfds_folder, source_language="fr")
    assert failure("toy_translat/de-en", tfds_folder).startswith(
        "TFDS has no set 'toy_translat/de-"
    )


def test_a_tfds_set_that_cannot_be_prepared_here(tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    def no_network(*_, **__):
        raise OSError("no route to host\nat all")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", no_network)
    # Without TensorFlow nothing is even tried; with it, what went wrong is told.
    found = importlib.util.find_spec
    for spec, reason in (
        (None, "is not prepared in"),
        ("there", "cannot be prepared here (no route"),
    ):
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *rest, spec=spec: spec if name == "tensorflow" else found(name, *rest),
        )
        message = failure("wmt14_translate/de-en", tmp_path)
        assert message.startswith(f"TFDS set wmt14_translate/de-en {reason}")
        assert "\n" not in message and "download_and_prepare()" in message
    monkeypatch.setattr(importlib.util, "find_spec", found)
    for name in ("wmt14_translate/de-en", "ted_hrlr_translate/pt_to_en"):
        message = failure(name, tmp_path)
        assert message.startswith(f"TFDS set {name} ")
        assert f"builder('{name}'" in message and "--config.data.path" in message


@pytest.mark.parametrize("character", "\n\r\x0b\x1b\x85\u2028\u2029\u202e\ud800")
def test_an_error_is_one_line_whatever_it_names(character):
    message = str(DataError(f"a{character}b is missing"))
    assert len(message.splitlines()) == 1 and message.isprintable()
    assert message.startswith("a\\") and message.endswith("b is missing")
