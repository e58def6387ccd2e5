"""Invalid native Marian folders: one-line errors that name file and field."""

import shutil
import struct
from datetime import date

import numpy as np
import pytest
import yaml

from data.errors import DataError
from interop.locate import locate_folder
from interop.marian.binary import read_items
from interop.marian.model import read_native
from tests.experiments.commands import error_line
from tests.experiments.native_folders import (
    DECODER,
    PLAIN,
    SIZE,
    random_items,
    save_bin,
    save_folder,
    save_npz,
    save_shortlist,
)
from tests.experiments.pickles import Program

MODEL = "model.ende.bin"


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("native") / "m"
    save_folder(folder)
    return folder


@pytest.fixture
def folder(intact, tmp_path):
    return shutil.copytree(intact, tmp_path / "m")


def assert_rejected(folder, message):
    with pytest.raises(DataError, match=message) as error:
        read_native(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


SETTINGS = {
    "kind": ({"type": "s2s"}, 'type="s2s" is not supported, only "transformer"'),
    "pre-norm": ({"transformer-preprocess": "n"}, 'transformer-preprocess="n" is not supported'),
    "highway": ({"transformer-postprocess": "dhn"}, 'transformer-postprocess="dhn" is not'),
    "top": ({"transformer-postprocess-top": "n"}, 'transformer-postprocess-top="n" is not'),
    "depth": ({"transformer-ffn-depth": 3}, "transformer-ffn-depth=3 is not supported, only 2"),
    "average": (
        {"transformer-decoder-autoreg": "average-attention"},
        'transformer-decoder-autoreg="average-attention" is not supported, only "self-attention"',
    ),
    "cell": ({"dec-cell": "gru"}, 'dec-cell="gru" is not supported, only "ssru"'),
    "activation": ({"transformer-ffn-activation": "gelu"}, 'ffn-activation="gelu" is not'),
    "positions": ({"transformer-train-position-embeddings": True}, "embeddings=true is not"),
    "factors": ({"lemma-dim-emb": 64}, "lemma-dim-emb=64 is not supported, only 0"),
    "tied": ({"transformer-tied-layers": [1, 1]}, r"tied-layers=\[1, 1\] is not supported"),
    "words": ({"dim-vocabs": [99, 99]}, "dim-vocabs says 99, but its vocabulary has 120 words"),
    "ends": (
        {"transformer-postprocess-emb": "n"},
        'transformer-postprocess-emb="n" is not supported, only "d" or ""',
    ),
    "sizes": ({"transformer-dim-ffn": 32}, r"encoder_l1_ffn_W1 has the shape \[16, 24\], not "),
    "layers": ({"dec-depth": 3}, "lacks decoder_l3_rnn_W, required by its settings"),
    "heads": ({"transformer-heads": 5}, "d_model=16 is not a multiple of model.num_heads=5"),
    "backwards": ({"right-left": True}, "right-left=true is not supported, only false"),
    "one size": ({"dim-vocabs": 120}, "dim-vocabs: expected array . null, got str"),
    "a date": ({"enc-depth": date(2020, 1, 1)}, "enc-depth: expected int . null, got str"),
    "fewer layers": ({"enc-depth": 1}, "its settings do not explain encoder_l2_"),
    "no bias": ({"output-omit-bias": True}, "do not explain decoder_ff_logit_out_b"),
    "no size": ({"dim-emb": None}, "dim-emb is missing, but it must be a whole number"),
}
DECODERS = {
    "ensemble": ({"models": [MODEL, MODEL]}, "models names 2, an ensemble: keep one"),
    "no list": ({"models": MODEL}, "models: expected array, got str"),
    "one side": ({"vocabs": ["vocab.ende.spm"]}, "vocabs names 1, but must name two"),
    "words": ({"word-penalty": 0.5}, "word-penalty=0.5 is not supported, only 0"),
    "beam": ({"beam-size": "wide"}, "beam-size: expected int . null, got str"),
    "no beam": ({"beam-size": 0}, ": beam-size=0 must be from 1"),
    "endless": ({"beam-size": float("inf")}, "beam-size: expected int . null, got str"),
    "exponent": ({"normalize": -99}, ": normalize=-99.0 must be"),
    "lost": ({"models": ["model.bin"]}, "model.bin is missing"),
    "no shortlist": ({"shortlist": ["lex.bin"]}, "shortlist names lex.bin, which does not exist"),
    "a shortlist": ({"shortlist": "lex.bin"}, "shortlist: expected array . null, got str"),
    "no vocabulary": ({"vocabs": ["v.spm"] * 2}, "v.spm is missing"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_an_unsupported_setting_is_named(case, folder):
    changes, message = SETTINGS[case]
    save_bin(folder / MODEL, random_items(PLAIN), PLAIN | changes)
    assert_rejected(folder, message)


@pytest.mark.parametrize("case", DECODERS)
def test_invalid_decoder_settings_are_named(case, folder):
    changes, message = DECODERS[case]
    (folder / "config.yml").write_text(yaml.safe_dump(DECODER | changes))
    assert_rejected(folder, message)


def test_a_truncated_model_is_rejected(folder):
    content = (folder / MODEL).read_bytes()
    for size in 0, 7, 40, 3000, 9000, len(content) // 2, len(content) - 1:
        (folder / MODEL).write_bytes(content[:size])
        assert_rejected(
            folder, f"{MODEL} is corrupt or not a model of Marian: it has only {size} bytes"
        )


def test_a_file_in_another_format_is_rejected(folder):
    for content in b"<html>not found</html>" * 99, struct.pack("<QQ", 2, 1), b"\xff" * 999:
        (folder / MODEL).write_bytes(content)
        assert_rejected(folder, f"{MODEL} is corrupt or not a model of Marian: it has version")
    (folder / "a.npz").write_bytes(b"PK\x03\x04broken")
    with pytest.raises(DataError, match="a.npz is corrupt or not a model of Marian"):
        read_items(folder / "a.npz")
    np.save(folder / "a.npy", np.zeros(3))
    (folder / "a.npy").rename(folder / "a.npz")
    with pytest.raises(DataError, match="a.npz is corrupt or not a model of Marian"):
        read_items(folder / "a.npz")
    save_npz(folder / "a.npz", random_items(PLAIN) | {"Wpos": np.array(["text"])}, PLAIN)
    with pytest.raises(DataError, match="a.npz is corrupt or not a model of Marian: Wpos.npy hol"):
        read_items(folder / "a.npz")
    save_npz(folder / "a.npz", random_items(PLAIN) | {"Wemb": np.array([[np.inf]])}, PLAIN)
    with pytest.raises(DataError, match="a.npz: Wemb has non-finite numbers"):
        read_items(folder / "a.npz")


def test_a_cpu_specific_type_is_rejected(folder):
    content = (folder / MODEL).read_bytes()
    offset = content.index(struct.pack("<Q", 0x404))
    (folder / MODEL).write_bytes(
        content[:offset] + struct.pack("<Q", 0x6101) + content[offset + 8 :]
    )
    assert_rejected(folder, "has the type 0x6101, which is not supported")


def test_a_corrupt_shortlist_is_rejected_and_a_text_one_ignored(folder, capsys):
    file = folder / "lex.bin"
    (folder / "config.yml").write_text(yaml.safe_dump(DECODER | {"shortlist": ["lex.bin"]}))
    save_shortlist(file)
    content = file.read_bytes()
    for size in 20, 100, 1500, len(content) - 1:
        file.write_bytes(content[:size])
        assert_rejected(folder, "lex.bin is corrupt")
    file.write_bytes(content[:32] + struct.pack("<Q", SIZE) + content[40:])
    assert_rejected(folder, "lex.bin is corrupt: it has .* bytes, not")
    file.write_bytes(content[:32] + struct.pack("<Q", 1 << 63) + content[40:])
    assert_rejected(folder, "lex.bin is corrupt: it has .* bytes, not")
    file.write_bytes(content[:-4] + struct.pack("<I", SIZE))
    assert_rejected(folder, "lex.bin is corrupt: it contains ids outside the vocabulary")
    header = struct.unpack_from("<6Q", content)
    for offsets in 0, SIZE:
        file.write_bytes(struct.pack("<6Q", *header[:4], offsets, 0) + bytes(8 * offsets))
        assert_rejected(
            folder, f"lex.bin has {offsets - 1} source words, but the vocabulary has {SIZE}"
        )
    file.write_text("der the 0.5")
    assert read_native(folder).shortlist is None
    assert "lex.bin is not a binary shortlist: ignored" in capsys.readouterr().err


def test_a_pickle_is_never_executed(folder, tmp_path):
    marker = tmp_path / "marker"
    array = np.array([Program(str(marker))], object)
    np.savez(folder / "a.npz", **random_items(PLAIN), Wpos=array)
    (folder / "config.yml").write_text(yaml.safe_dump(DECODER | {"models": ["a.npz"]}))
    assert_rejected(
        folder, "a.npz is corrupt or not a model of Marian: Wpos.npy holds object, not num"
    )
    assert not marker.exists()


def test_a_model_without_settings_is_rejected(folder):
    np.savez(folder / "a.npz", **random_items(PLAIN))
    (folder / "config.yml").write_text(yaml.safe_dump(DECODER | {"models": ["a.npz"]}))
    assert_rejected(folder, "a.npz lacks special:model.yml")


def test_without_yaml_the_only_files_are_used(folder, capsys):
    (folder / "config.yml").unlink()
    (folder / "lex.50.50.ende.s2t.bin").write_bytes(b"a shortlist")
    assert read_native(folder).experiment.search.beam_size == 1
    assert "no YAML file has search settings: using greedy" in capsys.readouterr().err
    shutil.copy(folder / MODEL, folder / "other.bin")
    assert_rejected(folder, f"no YAML file selects one of these: {MODEL}, other.bin")
    (folder / "other.bin").unlink()
    content = (folder / "vocab.ende.spm").read_bytes()
    (folder / "vocab.pt.spm").write_bytes(content)
    assert_rejected(
        folder, "no YAML file names the .spm of source and target; .*: vocab.ende.spm, voc"
    )
    for name in "vocab.ende.spm", "vocab.pt.spm":
        (folder / name).unlink()
    assert_rejected(folder, "no YAML file names the .spm of source and target; .*: there is none")
    for name in "trgvocab.ende.spm", "srcvocab.ende.spm":
        (folder / name).write_bytes(content)
    assert read_native(folder).experiment.data.source_language == "en"


def test_of_several_yaml_files_decoder_yml_is_used(folder):
    shutil.copy(folder / "config.yml", folder / "other.yml")
    assert_rejected(folder, "several files name models, keep one: config.yml, other.yml")
    shutil.copy(folder / "config.yml", folder / "decoder.yml")
    assert read_native(folder).experiment.search.beam_size == 1


def test_invalid_vocabularies_are_rejected(folder):
    (folder / "vocab.ende.spm").write_bytes(b"x")
    assert_rejected(folder, "vocab.ende.spm is not a SentencePiece model")
    for text, message in (
        ("a: 0\nb: 5\n", "it needs one word for each id from 0 to 1"),
        ("- a\n", "expected object, got array"),
        ("a: [", "is not YAML"),
        ("a: b\nb: 0\n", "it needs one word for each id from 0 to 1"),
        ("a: 0\nb: 1\n", "lacks </s> or <unk>"),
    ):
        (folder / "vocab.yml").write_text(text)
        (folder / "source.spm").write_bytes(b"x")
        config = DECODER | {"vocabs": ["vocab.yml", "vocab.yml"]}
        (folder / "config.yml").write_text(yaml.safe_dump(config))
        assert_rejected(folder, message)


def test_locate_folder_accepts_folders_and_package_paths(tmp_path):
    assert locate_folder("package:experiments/configs").name == "configs"
    for path, message in (
        (str(tmp_path / "no"), "no is not a folder"),
        ("package:no_such_package/x", "package 'no_such_package' is not installed"),
        ("package:../x", "package '..' is not installed"),
        ("package:experiments/no", "no is not a folder"),
    ):
        with pytest.raises(DataError, match=message):
            locate_folder(path)


def test_the_command_prints_a_one_line_error(folder, tmp_path):
    (folder / MODEL).write_bytes(b"")
    line = error_line("import_model", f"--from={folder}", f"--workdir={tmp_path}/run")
    assert f"{MODEL} is corrupt" in line and not (tmp_path / "run").exists()
