"""What is wrong with a folder of Marian's own is one line that names file and field."""

import shutil
import struct

import numpy as np
import pytest
import yaml

from data.corpus import DataError
from experiments.importing.items import read_items
from experiments.importing.native import read_native
from experiments.importing.places import folder_of
from tests.experiments.commands import refused
from tests.experiments.native_folders import DECODER, PLAIN, random_items, save_bin, save_folder

MODEL = "model.ende.bin"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("native") / "m"
    save_folder(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "m")


def told(folder, message):
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
    "sizes": ({"transformer-dim-ffn": 32}, r"encoder_l1_ffn_W1 is \[16, 24\], but by its settings"),
    "layers": ({"dec-depth": 3}, "lacks decoder_l3_rnn_W, which its settings call for"),
    "heads": ({"transformer-heads": 5}, "d_model=16 is not a multiple of model.num_heads=5"),
    "no size": ({"dim-emb": None}, "dim-emb is null, but it must be a whole number"),
}
DECODERS = {
    "ensemble": ({"models": [MODEL, MODEL]}, "models names 2, an ensemble: leave one"),
    "no list": ({"models": MODEL}, "models must be a list of files"),
    "one side": ({"vocabs": ["vocab.spm"]}, "vocabs names 1, not the two sides'"),
    "words": ({"word-penalty": 0.5}, "word-penalty=0.5 is not supported, only 0"),
    "beam": ({"beam-size": "wide"}, "beam-size and normalize must be numbers"),
    "lost": ({"models": ["model.bin"]}, "model.bin: cannot read it"),
    "no vocabulary": ({"vocabs": ["v.spm"] * 2}, "v.spm: cannot read it"),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_a_setting_that_is_not_supported_is_named(case, folder):
    changes, message = SETTINGS[case]
    save_bin(folder / MODEL, random_items(PLAIN), PLAIN | changes)
    told(folder, message)


@pytest.mark.parametrize("case", DECODERS)
def test_a_file_that_names_others_wrongly_is_named(case, folder):
    changes, message = DECODERS[case]
    (folder / "config.yml").write_text(yaml.safe_dump(DECODER | changes))
    told(folder, message)


def test_a_model_that_is_cut_anywhere_is_told(folder):
    content = (folder / MODEL).read_bytes()
    for size in 0, 7, 40, 3000, 9000, len(content) // 2, len(content) - 1:
        (folder / MODEL).write_bytes(content[:size])
        told(folder, f"{MODEL} is damaged or no model of Marian's: it ends after {size} bytes")


def test_a_file_of_something_else_is_told(folder):
    for content in b"<html>not found</html>" * 99, struct.pack("<QQ", 2, 1), b"\xff" * 999:
        (folder / MODEL).write_bytes(content)
        told(folder, f"{MODEL} is damaged or no model of Marian's: it begins with")
    (folder / "a.npz").write_bytes(b"PK\x03\x04broken")
    with pytest.raises(DataError, match="a.npz is damaged or no model of Marian's"):
        read_items(folder / "a.npz")


def test_a_type_that_is_one_cpus_is_told(folder):
    content = (folder / MODEL).read_bytes()
    at = content.index(struct.pack("<Q", 0x404))
    (folder / MODEL).write_bytes(content[:at] + struct.pack("<Q", 0x6101) + content[at + 8 :])
    told(folder, "has the type 0x6101, which is not supported")


class Program:
    """What a pickle in an archive of NumPy's can be."""

    def __init__(self, witness):
        self.witness = witness

    def __reduce__(self):
        return open, (self.witness, "w")


def test_a_pickle_is_never_run(folder, tmp_path):
    witness = tmp_path / "witness"
    array = np.array([Program(str(witness))], object)
    np.savez(folder / "a.npz", **random_items(PLAIN), Wpos=array)
    (folder / "config.yml").write_text(yaml.safe_dump(DECODER | {"models": ["a.npz"]}))
    told(folder, "a.npz is damaged or no model of Marian's: .*allow_pickle=False")
    assert not witness.exists()


def test_without_settings_it_is_no_whole_model(folder):
    np.savez(folder / "a.npz", **random_items(PLAIN))
    (folder / "config.yml").write_text(yaml.safe_dump(DECODER | {"models": ["a.npz"]}))
    told(folder, "a.npz lacks special:model.yml")


def test_without_a_yaml_the_only_files_are_meant(folder):
    (folder / "config.yml").unlink()
    (folder / "lex.50.50.ende.s2t.bin").write_bytes(b"a shortlist")
    assert read_native(folder).experiment.search.beam_size == 12
    shutil.copy(folder / MODEL, folder / "other.bin")
    told(folder, f"no YAML file says which of these is meant: {MODEL}, other.bin")
    (folder / "other.bin").unlink()
    (folder / "vocab.spm").rename(folder / "vocab.txt")
    told(folder, "there are 0 .spm files and no YAML that names some")


def test_of_several_yaml_files_one_must_be_the_decoders(folder):
    shutil.copy(folder / "config.yml", folder / "other.yml")
    told(folder, "several files name models, leave one: config.yml, other.yml")
    shutil.copy(folder / "config.yml", folder / "decoder.yml")
    assert read_native(folder).experiment.search.beam_size == 1


def test_vocabularies_that_are_none_are_told(folder):
    (folder / "vocab.spm").write_bytes(b"x")
    told(folder, "vocab.spm is not a SentencePiece model")
    for text, message in (
        ("a: 0\nb: 5\n", "it needs one word for each id from 0 to 1"),
        ("- a\n", "is not a table of settings"),
        ("a: [", "is not YAML"),
        ("a: 0\nb: 1\n", "lacks </s> or <unk>"),
    ):
        (folder / "vocab.yml").write_text(text)
        (folder / "source.spm").write_bytes(b"x")
        wanted = DECODER | {"vocabs": ["vocab.yml", "vocab.yml"]}
        (folder / "config.yml").write_text(yaml.safe_dump(wanted))
        told(folder, message)


def test_a_place_is_a_folder_or_in_a_package(tmp_path):
    assert folder_of("package:experiments/configs").name == "configs"
    for place, message in (
        (str(tmp_path / "no"), "no is not a folder"),
        ("package:no_such_package/x", "there is no package 'no_such_package': is it installed"),
        ("package:../x", "there is no package '..'"),
        ("package:experiments/no", "no is not a folder"),
    ):
        with pytest.raises(DataError, match=message):
            folder_of(place)


def test_the_command_tells_it_in_one_line(folder, tmp_path):
    (folder / MODEL).write_bytes(b"")
    line = refused("import_model", f"--from={folder}", f"--workdir={tmp_path}/run")
    assert f"{MODEL} is damaged" in line and not (tmp_path / "run").exists()
