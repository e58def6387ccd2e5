"""Local corpora: pairs of their files, and one-line errors for invalid files."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.corpus import open_corpus
from data.text import read_lines
from tests.data.corpus_files import PAIRS, failure, write


@pytest.mark.parametrize("kind", ["text", "tsv", "jsonl"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"end": "\r\n", "last": "\r\n"},
        {"last": ""},
        {"pack": True},
        {"bom": b"\xef\xbb\xbf"},
    ],
)
def test_a_corpus_has_the_pairs_of_its_files(kind, options, tmp_path):
    write(tmp_path, kind, **options)
    corpus = open_corpus(kind, "train", path=str(tmp_path))
    assert [corpus[i] for i in range(len(corpus))] == PAIRS
    for index in (-1, len(PAIRS)):
        with pytest.raises(IndexError):
            corpus[index]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r")),
                min_size=1), st.sampled_from(["\n", "\r\n"]), st.booleans())  # fmt: skip
def test_lines_end_at_line_feeds_only(tmp_path_factory, lines, end, ends_with_newline):
    lines = ["first", *lines, "last"]
    path = tmp_path_factory.mktemp("lines") / "a"
    path.write_bytes((end.join(lines) + (end if ends_with_newline else "")).encode())
    assert read_lines(path) == lines


@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_either_direction(kind, tmp_path):
    write(tmp_path, kind)
    languages = dict(source_language="de", target_language="en")
    corpus = open_corpus(kind, "train", path=str(tmp_path), **languages)
    assert [corpus[i] for i in range(len(corpus))] == [pair[::-1] for pair in PAIRS]


def test_files_by_name(tmp_path):
    write(tmp_path, "text")
    path = f"train={tmp_path}/train.de,{tmp_path}/train.en; valid={tmp_path}/x,{tmp_path}/y"
    assert open_corpus("text", "train", path=path)[0] == PAIRS[0][::-1]
    assert failure("text", path, "valid") == f"{tmp_path}/x is missing"
    assert "does not name two files for the test split" in failure("text", path, "test")


def test_a_folder_may_have_an_equals_sign_in_its_name(tmp_path):
    folder = tmp_path / "train=1"
    folder.mkdir()
    write(folder, "text")
    assert len(open_corpus("text", "train", path=str(folder))) == len(PAIRS)


def test_tsv_columns_by_their_header(tmp_path):
    (tmp_path / "train.tsv").write_text("id\tde\tfr\ten\n7\tja\toui\tyes\n8\tnein\tnon\tno\n")
    corpus = open_corpus("tsv", "train", path=str(tmp_path), source_language="fr")
    assert [corpus[i] for i in range(len(corpus))] == [("oui", "ja"), ("non", "nein")]


def test_json_lines_with_a_translation_object_and_line_breaks(tmp_path):
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


# mtime=0: otherwise the ids of these cases would differ between test processes.
GZIP = gzip.compress(b"a\n" * 99, mtime=0)


@pytest.mark.parametrize("content", [b"not gzip", GZIP[:-9], GZIP[:10] + b"\xff" * 30])
def test_a_corrupt_gzip_file(content, tmp_path):
    (tmp_path / "train.en.gz").write_bytes(content)
    (tmp_path / "train.de").write_text("a\n")
    assert failure("text", tmp_path).startswith(
        f"{tmp_path}/train.en.gz is not a complete gzip file: "
    )


@pytest.mark.parametrize("kind", ["text", "tsv", "jsonl"])
def test_a_missing_split_error_lists_the_files(kind, tmp_path):
    write(tmp_path, kind)
    name = "valid.en" if kind == "text" else f"valid.{kind}"
    listing = ", ".join(sorted(file.name for file in tmp_path.iterdir()))
    message = failure(kind, tmp_path, "valid")
    assert message.startswith(f"{tmp_path}/{name} is missing, also as .gz; ")
    assert message.endswith(listing)
    assert failure(kind, tmp_path / "no") == f"data.path={tmp_path}/no is not a folder"
    assert failure(kind, "") == f"data.kind={kind} needs --config.data.path=DIR"


@pytest.mark.parametrize(("content", "reason"), [
    ("a\tb\na b\n", "line 2: 1 columns instead of 2"),
    ("a\tb\n\na\tb\n", "line 2: 1 columns instead of 2"),
    ("a\tb\tc\n", "line 1: 3 columns instead of 2"),
    ("de\ten\tfr\na\tb\tc\na\tb\n", "line 3: 2 columns instead of 3"),
    ("de\ten\n", "has only a header"),
])  # fmt: skip
def test_bad_tsv(content, reason, tmp_path):
    (tmp_path / "train.tsv").write_text(content)
    message = failure("tsv", tmp_path)
    assert message.startswith(f"{tmp_path}/train.tsv") and reason in message


@pytest.mark.parametrize(("row", "reason"), [
    ("{", "not JSON: "), ("9" * 5000, "not JSON: "), ("[" * 100000, "not JSON"),
    ("[1]", "not a JSON object"), ('{"translation": "x"}', "no text under the key 'en'"),
    ('{"en": "a"}', "no text under the key 'de'"), ('{"en": 1, "de": ""}', "under the key 'en'"),
    ('{"en": "\\ud800", "de": ""}', "an unpaired surrogate in 'en'"),
])  # fmt: skip
def test_bad_json_lines(row, reason, tmp_path):
    (tmp_path / "train.jsonl").write_text(f'{{"en": "a", "de": "b"}}\n{row}\n')
    message = failure("jsonl", tmp_path)
    assert message.startswith(f"{tmp_path}/train.jsonl, line 2: ") and reason in message


@pytest.mark.parametrize("kind", ["tsv", "jsonl"])
@pytest.mark.parametrize("end", ["\n", "\n\n", "\r\n", " \n", "\n "])
def test_blank_lines_at_the_end_are_ignored(kind, end, tmp_path):
    write(tmp_path, kind)
    file = tmp_path / f"train.{kind}"
    file.write_bytes(file.read_bytes() + end.encode())
    corpus = open_corpus(kind, "train", path=str(tmp_path))
    assert [corpus[i] for i in range(len(corpus))] == PAIRS


@pytest.mark.parametrize("line", ["", " "])
def test_a_blank_line_within_jsonl_is_an_error(line, tmp_path):
    row = '{"en": "a", "de": "b"}'
    (tmp_path / "train.jsonl").write_text(f"{row}\n{line}\n{row}\n\n")
    assert failure("jsonl", tmp_path) == (
        f"{tmp_path}/train.jsonl, line 2: blank, but not at the end: remove it"
    )


def test_unknown_names_get_suggestions():
    assert failure("txt", "x").endswith("did you mean text?")
    assert failure("demp", "x").endswith("did you mean demo?")
    assert failure("parquet", "x").endswith("a TFDS name such as wmt14_translate/de-en")
    message = failure("text", "x", "dev")
    assert message == "split='dev' is not one of: train, valid, test"
