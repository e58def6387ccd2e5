"""Malicious archives: decompression bombs, cycles and invalid pickles are one-line errors."""

import gzip
import io
import os
import pickle
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from data.errors import DataError
from data.npz import read_npz
from data.regular_file import check_holes, open_regular
from data.text import read_lines
from data.yaml_file import decode_yaml, read_strings
from interop.fairseq.settings import read_settings
from interop.torch_archive import read_arrays, read_content
from tests.experiments.fairseq_folders import Tensor, save_checkpoint
from tests.fuzz.legacy import save_legacy

GIGABYTE = 1 << 30


def zipped(file, *members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)


@pytest.fixture
def memory_limit():
    """Asserts that the test takes less than 300 MB."""
    tracemalloc.start()
    yield
    assert tracemalloc.get_traced_memory()[1] < 300 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("wrong_size", [False, True])
def test_a_large_decompressed_member_is_rejected(wrong_size, tmp_path, memory_limit):
    """Whatever size its header declares."""
    file = tmp_path / "x.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("x.npy", "w") as member:
            for _ in range(100):
                member.write(bytes(1 << 20))
    if wrong_size:
        content = file.read_bytes()
        file.write_bytes(content.replace(struct.pack("<I", 100 << 20), struct.pack("<I", 1000)))
    with pytest.raises((DataError, zipfile.BadZipFile)) as error:
        read_npz(file)
    assert wrong_size or "x.npz unpacks to more than 67,108,864 bytes" in str(error.value)


def test_the_total_size_of_members_is_limited(tmp_path, memory_limit):
    """As in an archive whose members share the same bytes."""
    file, content = tmp_path / "x.npz", io.BytesIO()
    np.save(content, np.zeros(1 << 20, np.float32))
    zipped(file, *((f"{n}.npy", content.getvalue()) for n in range(40)))
    with pytest.raises(DataError, match="x.npz unpacks to more than"):
        read_npz(file)


def test_an_unsupported_compression_is_rejected(tmp_path):
    zipped(tmp_path / "x.npz", ("x.npy", b"a" * 1000), method=zipfile.ZIP_LZMA)
    with pytest.raises(ValueError, match="x.npy is compressed in a way that is not supported"):
        read_npz(tmp_path / "x.npz")


@pytest.mark.parametrize("shape", [(1 << 40,), (-1,), (-2, -2), (3,), (1 << 20,) * 40])
def test_an_array_with_a_wrong_shape_is_rejected(shape, tmp_path, memory_limit):
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    content = io.BytesIO()
    np.lib.format.write_array_header_1_0(content, header)
    zipped(tmp_path / "x.npz", ("x.npy", content.getvalue() + bytes(16)))
    with pytest.raises(ValueError, match="x.npy has 16 bytes, not those of"):
        read_npz(tmp_path / "x.npz")


def test_large_decompressed_text_is_rejected(tmp_path, memory_limit):
    member = gzip.compress(b"a\n" * (1 << 19), 9)
    (tmp_path / "x.gz").write_bytes(member * 65)
    with pytest.raises(DataError, match="x.gz unpacks to more than 67,108,864 bytes, .* unpack it"):
        read_lines(tmp_path / "x.gz")
    (tmp_path / "x.gz").write_bytes(member * 2)
    assert len(read_lines(tmp_path / "x.gz")) == 1 << 20


def test_a_sparse_file_is_rejected(tmp_path):
    file = tmp_path / "x"
    with file.open("wb") as content:
        content.write(b"start")
        content.truncate(GIGABYTE)
    with open_regular(file) as content, pytest.raises(DataError, match="only .* are stored"):
        check_holes(content, file)
    with pytest.raises(DataError, match="x has 1,073,741,824 bytes, but only"):
        read_lines(file)


@pytest.mark.parametrize("name", ["pipe", "folder", "link"])
def test_special_files_are_rejected(name, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/zero")
    for read in read_npz, read_content, read_strings:
        with pytest.raises(DataError, match=f"{name} is not a regular file"):
            read(tmp_path / name)
    with pytest.raises(DataError, match=f"{name} is not a regular file"):
        read_lines(tmp_path / name)


def test_tensors_that_share_a_storage_share_memory(tmp_path, memory_limit):
    numbers = np.ones(1 << 18, np.float32)
    shared = Tensor(numbers)
    save_checkpoint(tmp_path / "x.pt", dict.fromkeys("abcd", shared))
    arrays = read_arrays(tmp_path / "x.pt", read_content(tmp_path / "x.pt"))
    assert arrays["a"].base is not None and np.shares_memory(arrays["a"], arrays["d"])
    np.testing.assert_array_equal(arrays["c"], numbers)
    save_checkpoint(tmp_path / "x.pt", {str(n): shared for n in range(3000)})
    with pytest.raises(DataError, match="many times the 262,144 stored numbers"):
        read_arrays(tmp_path / "x.pt", read_content(tmp_path / "x.pt"))


def test_a_legacy_archive_has_the_same_tensors(tmp_path):
    numbers = np.arange(12, dtype=np.float32).reshape(3, 4)
    content = {"a": Tensor(numbers), "b": Tensor(numbers.astype("<f8"), "DoubleStorage")}
    for name, save in ("new", save_checkpoint), ("old", save_legacy):
        save(tmp_path / name, content)
        arrays = read_arrays(tmp_path / name, read_content(tmp_path / name))
        np.testing.assert_array_equal(arrays["a"], numbers)
        np.testing.assert_array_equal(arrays["b"], numbers)
    (tmp_path / "old").write_bytes((tmp_path / "old").read_bytes()[:-1])
    with pytest.raises(DataError, match="old is corrupt .*: it is shorter than its storages"):
        read_arrays(tmp_path / "old", read_content(tmp_path / "old"))


def pickled(tmp_path, program):
    zipped(tmp_path / "x.pt", ("x/data.pkl", program))
    return read_content(tmp_path / "x.pt")


def cyclic():
    settings = {"a": 1}
    settings["itself"] = settings
    return settings


def exponential():
    """2**60 dictionaries in a few bytes."""
    settings = {"a": 1}
    for _ in range(60):
        settings = {"b": settings, "c": settings}
    return settings


@pytest.mark.parametrize("make", [cyclic, exponential])
@pytest.mark.parametrize("key", ["cfg", "args"])
def test_recursive_settings_are_rejected(make, key, tmp_path):
    content = pickled(tmp_path, pickle.dumps({"model": {}, key: {"model": make()}}, 2))
    with pytest.raises(DataError, match="x.pt: its settings are too large, or recursive"):
        read_settings(tmp_path / "x.pt", content)


TUPLES = b"(" + b"K\x01K\x02\x86q\x00" + b"h\x00h\x00\x86q\x00" * 60 + b"K\x01d."
PROGRAMS = {
    "a memo of 4 billion entries": (b"\x80\x02Nr\xff\xff\xff\xff.", None),
    "4 billion bytes": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".", "x.pt is corrupt"),
    "a frame of a terabyte": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 40) + b"N.", None),
    "a key that takes for ever to hash": (b"\x80\x02" + TUPLES, "neither a name nor a number"),
    "an attribute of a function": (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x01\x00\x00\x00aK\x01sb.", None,
    ),
    "a call of no function": (b"\x80\x02X\x01\x00\x00\x00a)R.", "calls an unsupported function"),
    "an object of no class": (b"\x80\x02X\x01\x00\x00\x00a)\x81.", "of an unsupported class"),
    "an end too soon": (b"\x80\x02", "x.pt is corrupt"),
}  # fmt: skip


@pytest.mark.parametrize("case", PROGRAMS)
def test_a_malicious_pickle_takes_little_memory(case, tmp_path, memory_limit):
    program, message = PROGRAMS[case]
    if message is None:
        assert not hasattr(pickled(tmp_path, program), "a")
        return
    with pytest.raises(DataError, match=message) as error:
        pickled(tmp_path, program)
    assert "\n" not in str(error.value)


def test_a_tensor_larger_than_its_storage_is_rejected(tmp_path):
    layout = (0, (1 << 40,), (0,))
    save_checkpoint(tmp_path / "x.pt", {"x": Tensor(np.zeros(4, np.float32), layout=layout)})
    with pytest.raises(DataError, match="x.pt is corrupt"):
        read_arrays(tmp_path / "x.pt", read_content(tmp_path / "x.pt"))


def test_an_unknown_global_in_a_legacy_archive_is_rejected(tmp_path):
    file = tmp_path / "x.pt"
    parts = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    file.write_bytes(b"".join(pickle.dumps(part, 2) for part in parts) + b"\x80\x02cos\nsystem\n.")
    with pytest.raises(DataError, match=r"more than tensors and settings \(os.system\)"):
        read_content(file)


YAML = {
    "!!int ''": ({"a": ""}, None),
    "!!bool foo": ({"a": "foo"}, None),
    "2001-99-99": ({"a": "2001-99-99"}, None),
    "&x [1]": ({"a": ["1"]}, None),
    "~": ({"a": None}, None),
    "no": ({"a": False}, None),
    "'no'": ({"a": "no"}, None),
    ".5": ({"a": 0.5}, None),
    "*x": (None, "x.yml is not YAML: aliases .* are not supported"),
    "{? [1] : 2}": (None, "x.yml is not YAML: a key must be text"),
    "1\n--- {}": (None, "x.yml is not YAML: it has several documents"),
    "[" * 2000: (None, "x.yml is not YAML: .*exceeded maximum nesting"),
    "\x00": (None, "x.yml is not YAML"),
    "'\\xff": (None, "x.yml is not YAML"),
}


@pytest.mark.parametrize("text", YAML, ids=[text[:9] for text in YAML])
def test_yaml_has_only_strings_mappings_and_lists(text, tmp_path):
    expected, message = YAML[text]
    data = f"a: {text}\n".encode()
    if message is None:
        assert decode_yaml(data, dict, "x.yml") == expected
        return
    with pytest.raises(DataError, match=message) as error:
        decode_yaml(data, dict, "x.yml")
    assert "\n" not in str(error.value)
