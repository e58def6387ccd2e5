"""Invalid fairseq checkpoints: one-line errors that name file and field."""

import pickle
import shutil
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from data.errors import DataError
from interop.fairseq.model import read_fairseq
from interop.locate import locate_folder
from interop.torch_archive import read_arrays, read_content
from tests.experiments.commands import error_line
from tests.experiments.fairseq_folders import Global, Tensor, content, save_checkpoint, save_folder
from tests.experiments.pickles import Program

BEST = "checkpoints/checkpoint_best.pt"


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fairseq") / "m"
    return folder, *save_folder(folder)


@pytest.fixture
def folder(intact, tmp_path):
    return shutil.copytree(intact[0], tmp_path / "m")


def assert_rejected(path, message):
    with pytest.raises(DataError, match=message) as error:
        read_fairseq(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


PRE = {"encoder_normalize_before": True, "decoder_normalize_before": True}
SETTINGS = {
    "arch": ({"arch": "bart_large"}, 'arch="bart_large" is not supported, only "transformer" or'),
    "lm": ({"arch": "transformer_unidirectional"}, 'arch="transformer_unidirectional" is not'),
    "task": ({"task": "multilingual_translation"}, "task=.* is not supported, only .translation"),
    "tokenizer": ({"tokenizer": "moses"}, 'tokenizer="moses" is not supported, only "space"'),
    "bpe": ({"bpe": "sentencepiece"}, 'bpe="sentencepiece" is not supported, only "subword_nmt"'),
    "norm": ({"layernorm_embedding": True}, "layernorm_embedding=true is not supported, only fal"),
    "adaptive": ({"adaptive_softmax_cutoff": "9,9"}, 'adaptive_softmax_cutoff="9,9" is not'),
    "input": ({"adaptive_input": True}, "adaptive_input=true is not supported"),
    "no positions": ({"no_token_positional_embeddings": True}, "no_token_positional_embeddings=t"),
    "across": ({"cross_self_attention": True}, "cross_self_attention=true is not supported"),
    "pruned": ({"decoder_layers_to_keep": "0,1"}, 'decoder_layers_to_keep="0,1" is not'),
    "activation": ({"activation_fn": "tanh"}, 'activation_fn="tanh" is not supported, only "relu"'),
    "sides": ({"decoder_ffn_embed_dim": 32}, "encoder_ffn_embed_dim=24 and decoder_ffn_embed_d"),
    "one norm": ({"decoder_normalize_before": True}, "encoder_normalize_before=False and decod"),
    "one table": ({"encoder_learned_pos": True}, "encoder_learned_pos=True and decoder_learned"),
    "lengths": (
        {"encoder_learned_pos": True, "decoder_learned_pos": True, "max_source_positions": 32},
        "max_source_positions=32 and max_target_positions=64 differ, which is not supported with",
    ),
    "end": ({"decoder_output_dim": 8}, "decoder_output_dim=8 is not supported, only 16"),
    "heads": (
        {"encoder_attention_heads": 5, "decoder_attention_heads": 5},
        "model.d_model=16 is not a multiple of model.num_heads=5",
    ),
    "no size": ({"encoder_embed_dim": None, "decoder_embed_dim": None}, "encoder_embed_dim is mis"),
    "more layers": (
        {"decoder_layers": 3},
        "lacks decoder.layers.2.self_attn.q_proj.weight, required",
    ),
    "fewer layers": ({"encoder_layers": 1}, "settings do not explain encoder.layers.1.fc1.bias"),
    "pre-norm": (PRE, "lacks encoder.layer_norm.weight, required by its settings"),
    "sizes": (
        {"encoder_ffn_embed_dim": 32, "decoder_ffn_embed_dim": 32},
        r"fc1.weight has the shape \[24, 16\], not \[32, 16\] as in its settings",
    ),
    "shared": ({"share_all_embeddings": True}, "dict.en.txt and .*dict.de.txt differ, but"),
    "learned": (
        {"encoder_learned_pos": True, "decoder_learned_pos": True},
        "lacks encoder.embed_positions.weight",
    ),
    "dropout": ({"dropout": "much"}, "dropout: expected float . null, got str"),
    "languages": ({"source_lang": None}, "does not name the source and target languages: give --"),
    "a language": ({"target_lang": "fr"}, r"found no dict.fr.txt beside .*dict.de.txt, .*en"),
}
SEARCH = {
    "length": ({"max_len_a": 1.2}, "max_len_a=1.2 is not supported, only 0"),
    "unknown": ({"unkpen": 2.0}, "unkpen=2.0 is not supported, only 0"),
    "sampling": ({"sampling": True}, "sampling=true is not supported, only false"),
    "diverse": ({"diverse_beam_groups": 5}, "diverse_beam_groups=5 is not supported"),
    "language model": ({"lm_path": "lm.pt"}, 'lm_path="lm.pt" is not supported'),
    "beam": ({"beam": 0}, ": beam=0 must be from 1"),
    "power": ({"lenpen": 99.0}, ": lenpen=99.0 must be from -10 to 10"),
}


@pytest.mark.parametrize("case", [*SETTINGS, *SEARCH])
def test_an_unsupported_setting_is_named(case, intact, folder):
    changes, message = (SETTINGS | SEARCH)[case]
    _, settings, arrays = intact
    model, search = (changes, {}) if case in SETTINGS else ({}, changes)
    checkpoint = content(settings | model, arrays, search)
    checkpoint["cfg"]["task"]["_name"] = model.get("task", "translation")
    checkpoint["cfg"]["tokenizer"] = model.get("tokenizer")
    save_checkpoint(folder / BEST, checkpoint)
    assert_rejected(folder, message)


def missing_tensor(folder, intact):
    _, settings, arrays = intact
    arrays = {name: x for name, x in arrays.items() if name != "decoder.layers.1.fc2.bias"}
    save_checkpoint(folder / BEST, content(settings, arrays))


def untied(folder, intact):
    _, settings, arrays = intact
    other = arrays["decoder.output_projection.weight"] + 1
    arrays = arrays | {"decoder.output_projection.weight": other}
    save_checkpoint(folder / BEST, content(settings, arrays))


def extra_tensor(folder, intact):
    _, settings, arrays = intact
    other = {"decoder.adaptive_softmax.head.weight": np.zeros((2, 2), np.float32)}
    save_checkpoint(folder / BEST, content(settings, arrays | other))


def truncate(folder, _):
    (folder / BEST).write_bytes((folder / BEST).read_bytes()[:-100])


def flip_bit(folder, _):
    """Flips a bit of the numbers, which the archive's checksums detect."""
    data = bytearray((folder / BEST).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / BEST).write_bytes(data)


def several_checkpoints(folder, _):
    for name in "checkpoint1.pt", "checkpoint2.pt":
        shutil.copy(folder / BEST, folder / "checkpoints" / name)
    (folder / BEST).unlink()


def append_line(folder, line):
    with (folder / "data" / "dict.en.txt").open("a") as file:
        file.write(line)


CORRUPT = {
    "truncated": (truncate, "checkpoint_best.pt is corrupt or not an archive of PyTorch"),
    "flipped bit": (flip_bit, "checkpoint_best.pt is corrupt or not an archive of PyTorch"),
    "older": (
        lambda f, _: (f / BEST).write_bytes(pickle.dumps({"model": 1})),
        "checkpoint_best.pt is corrupt or not an archive of PyTorch: it has another magic",
    ),
    "empty": (lambda f, _: (f / BEST).write_bytes(b""), "is corrupt or not an archive"),
    "no weights": (
        lambda f, _: save_checkpoint(f / BEST, {"cfg": {}}),
        "is not a checkpoint of fairseq: it has no weights named 'model'",
    ),
    "no settings": (
        lambda f, _: save_checkpoint(f / BEST, {"model": OrderedDict(), "args": None}),
        "is not a checkpoint of fairseq: it has neither 'cfg' nor 'args'",
    ),
    "a list": (lambda f, _: save_checkpoint(f / BEST, [1]), "is not a checkpoint of fairseq"),
    "missing tensor": (missing_tensor, "lacks decoder.layers.1.fc2.bias, required by its settings"),
    "extra tensor": (extra_tensor, "settings do not explain decoder.adaptive_softmax.head.weight"),
    "not tied": (untied, "output_projection.weight differs from decoder.embed_tokens.weight"),
    "several": (
        several_checkpoints,
        r"several checkpoints and no checkpoint_best.pt.*/FILE: checkpoints/checkpoint1.pt, ",
    ),
    "no dictionary": (
        lambda f, _: (f / "data" / "dict.de.txt").unlink(),
        "found no dict.de.txt beside the checkpoint or in data/ .*dict.en.txt",
    ),
    "extra word": (
        lambda f, _: append_line(f, "more 1\n"),
        r"dict.en.txt has \d+ words, and there are 4 more, but .* has 64 of en in encoder.embed",
    ),
    "duplicate word": (
        lambda f, _: append_line(f, "a 1\n"),
        "dict.en.txt, line 61: duplicate entry 'a'",
    ),
    "no count": (
        lambda f, _: append_line(f, "word\n"),
        "dict.en.txt, line 61: expected a word and",
    ),
    "invalid UTF-8": (
        lambda f, _: (f / "data" / "dict.en.txt").write_bytes(b"\xff 1\n"),
        "dict.en.txt is not UTF-8",
    ),
    "merges of three": (
        lambda f, _: (f / "data" / "bpe.code").write_text("a b 3\n"),
        "bpe.code, line 1: expected a merge of two symbols, as in subword-nmt, got 'a b 3'",
    ),
    "two merge files": (
        lambda f, _: (f / "data" / "codes").write_text("a b\n"),
        "several files of merges, keep one: .*bpe.code, .*codes",
    ),
}


@pytest.mark.parametrize("case", CORRUPT)
def test_missing_and_corrupt_files_are_named(case, intact, folder):
    corrupt, message = CORRUPT[case]
    corrupt(folder, intact)
    assert_rejected(folder, message)


def test_required_merges_must_exist(intact, folder):
    _, settings, arrays = intact
    save_checkpoint(folder / BEST, content(settings | {"bpe": "subword_nmt"}, arrays))
    (folder / "data" / "bpe.code").unlink()
    assert_rejected(folder, "needs merges to split words, but there is no bpe.code or .* beside it")


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("key", ["cfg", "last_optimizer_state"])
def test_a_pickle_is_never_executed(key, protocol, folder, tmp_path):
    marker = tmp_path / "marker"
    with zipfile.ZipFile(folder / BEST, "w") as archive:
        program = pickle.dumps({"model": {}, key: Program(str(marker))}, protocol)
        archive.writestr("archive/data.pkl", program)
    assert_rejected(
        folder, r"has more than tensors and settings \(\w+.open\), which .* it is not opened"
    )
    assert not marker.exists()


@pytest.mark.parametrize("name", ["os.system", "torch.load", "builtins.eval", "builtins.getattr"])
def test_a_global_is_not_looked_up(name, folder):
    save_checkpoint(folder / BEST, {"model": {}, "args": Global(name)})
    assert_rejected(folder, rf"has more than tensors and settings \({name}\)")


def test_classes_of_settings_are_not_imported(folder):
    class Settings:
        def __reduce__(self):
            return Global("fairseq.dataclass.Anything"), ("rm", "-rf"), {"a": 1}

    save_checkpoint(
        folder / BEST, {"model": Settings(), "numpy": Global("numpy.testing.runstring")}
    )
    checkpoint = read_content(folder / BEST)
    assert (
        dict(checkpoint["model"]) == {"a": 1}
        and type(checkpoint["model"]).__name__ == "InertObject"
    )


@pytest.mark.parametrize(
    "layout",
    [
        (0, (5,), (1,)),  # more than the storage
        (2, (3,), (1,)),
        (0, (2, 2), (3, 1)),
        (0, (1 << 20,), (0,)),  # could exceed any memory
        (0, (2,), (1, 1)),
    ],
)
def test_a_tensor_outside_its_storage_is_rejected(layout, tmp_path):
    file = tmp_path / "x.pt"
    save_checkpoint(file, {"x": Tensor(np.zeros(4, np.float32), layout=layout)})
    with pytest.raises(DataError, match="x.pt is corrupt"):
        read_arrays(file, read_content(file))


def test_the_command_prints_a_one_line_error(folder, tmp_path):
    truncate(folder, None)
    line = error_line("import_model", f"--from={folder}", f"--workdir={tmp_path}/run")
    assert "checkpoint_best.pt is corrupt" in line and not (tmp_path / "run").exists()
    line = error_line("import_model", f"--from={folder / 'data'}", f"--workdir={tmp_path}/run")
    assert "no .pt of fairseq" in line
    with pytest.raises(DataError, match="dict.en.txt is not a folder"):
        locate_folder(str(folder / "data" / "dict.en.txt"))
