"""What is wrong with a checkpoint of fairseq's is one line that names file and field."""

import pickle
import shutil
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from data.errors import DataError
from interop.fairseq.model import read_fairseq
from interop.locate import folder_of
from interop.torch_archive import read_arrays, read_content
from tests.experiments.commands import refused
from tests.experiments.fairseq_folders import Named, Tensor, content, save_checkpoint, save_folder
from tests.experiments.pickles import Program

BEST = "checkpoints/checkpoint_best.pt"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fairseq") / "m"
    return folder, *save_folder(folder)


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "m")


def told(place, message):
    with pytest.raises(DataError, match=message) as error:
        read_fairseq(place)
    assert "\n" not in str(error.value) and str(place) in str(error.value)


PRE = {"encoder_normalize_before": True, "decoder_normalize_before": True}
SETTINGS = {
    "arch": ({"arch": "bart_large"}, 'arch="bart_large" is not supported, only "transformer" or'),
    "one way": ({"arch": "transformer_unidirectional"}, 'arch="transformer_unidirectional" is not'),
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
        "max_source_positions=32 and max_target_positions=64 differ, which is not supported of",
    ),
    "end": ({"decoder_output_dim": 8}, "decoder_output_dim=8 is not supported, only 16"),
    "heads": (
        {"encoder_attention_heads": 5, "decoder_attention_heads": 5},
        "model.d_model=16 is not a multiple of model.num_heads=5",
    ),
    "no size": ({"encoder_embed_dim": None, "decoder_embed_dim": None}, "encoder_embed_dim is mis"),
    "more layers": ({"decoder_layers": 3}, "lacks decoder.layers.2.self_attn.q_proj.weight, which"),
    "fewer layers": ({"encoder_layers": 1}, "settings do not say what encoder.layers.1.fc1.bias"),
    "pre-norm": (PRE, "lacks encoder.layer_norm.weight, which by its settings it would have"),
    "sizes": (
        {"encoder_ffn_embed_dim": 32, "decoder_ffn_embed_dim": 32},
        r"fc1.weight is \[24, 16\], but by its settings it would be \[32, 16\]",
    ),
    "shared": ({"share_all_embeddings": True}, "dict.en.txt and .*dict.de.txt differ, but"),
    "learned": (
        {"encoder_learned_pos": True, "decoder_learned_pos": True},
        "lacks encoder.embed_positions.weight",
    ),
    "dropout": ({"dropout": "much"}, "dropout: expected float . null, got str"),
    "languages": ({"source_lang": None}, "does not say which language is the source's: give --sou"),
    "a language": ({"target_lang": "fr"}, r"there is no dict.fr.txt, neither .*dict.de.txt, .*en"),
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
def test_a_setting_that_is_not_supported_is_named(case, whole, folder):
    changes, message = (SETTINGS | SEARCH)[case]
    _, settings, arrays = whole
    model, search = (changes, {}) if case in SETTINGS else ({}, changes)
    found = content(settings | model, arrays, search)
    found["cfg"]["task"]["_name"] = model.get("task", "translation")
    found["cfg"]["tokenizer"] = model.get("tokenizer")
    save_checkpoint(folder / BEST, found)
    told(folder, message)


def without(folder, whole):
    _, settings, arrays = whole
    arrays = {name: x for name, x in arrays.items() if name != "decoder.layers.1.fc2.bias"}
    save_checkpoint(folder / BEST, content(settings, arrays))


def untied(folder, whole):
    _, settings, arrays = whole
    other = arrays["decoder.output_projection.weight"] + 1
    arrays = arrays | {"decoder.output_projection.weight": other}
    save_checkpoint(folder / BEST, content(settings, arrays))


def more(folder, whole):
    _, settings, arrays = whole
    other = {"decoder.adaptive_softmax.head.weight": np.zeros((2, 2), np.float32)}
    save_checkpoint(folder / BEST, content(settings, arrays | other))


def cut(folder, _):
    (folder / BEST).write_bytes((folder / BEST).read_bytes()[:-100])


def changed(folder, _):
    """A bit of the numbers is another, which the archive's checksums tell."""
    found = bytearray((folder / BEST).read_bytes())
    found[len(found) // 2] ^= 1
    (folder / BEST).write_bytes(found)


def several(folder, _):
    for name in "checkpoint1.pt", "checkpoint2.pt":
        shutil.copy(folder / BEST, folder / "checkpoints" / name)
    (folder / BEST).unlink()


def appended(folder, line):
    with (folder / "data" / "dict.en.txt").open("a") as file:
        file.write(line)


SPOILED = {
    "truncated": (cut, "checkpoint_best.pt is corrupt or no archive of PyTorch's"),
    "a bit": (changed, "checkpoint_best.pt is corrupt or no archive of PyTorch's"),
    "older": (
        lambda f, _: (f / BEST).write_bytes(pickle.dumps({"model": 1})),
        "checkpoint_best.pt is corrupt or no archive of PyTorch's: it begins with another mark",
    ),
    "empty": (lambda f, _: (f / BEST).write_bytes(b""), "is corrupt or no archive of PyT"),
    "no weights": (
        lambda f, _: save_checkpoint(f / BEST, {"cfg": {}}),
        "is no checkpoint of fairseq: it has no weights named 'model'",
    ),
    "no settings": (
        lambda f, _: save_checkpoint(f / BEST, {"model": OrderedDict(), "args": None}),
        "is no checkpoint of fairseq: it has neither 'cfg' nor 'args'",
    ),
    "a list": (lambda f, _: save_checkpoint(f / BEST, [1]), "is no checkpoint of fairseq"),
    "a tensor less": (without, "lacks decoder.layers.1.fc2.bias, which by its settings"),
    "a tensor more": (more, "settings do not say what decoder.adaptive_softmax.head.weight is for"),
    "not tied": (untied, "output_projection.weight is another than decoder.embed_tokens.weight"),
    "several": (several, r"no checkpoint_best.pt says which .*/FILE: checkpoints/checkpoint1.pt, "),
    "no dictionary": (
        lambda f, _: (f / "data" / "dict.de.txt").unlink(),
        "there is no dict.de.txt, neither beside the checkpoint nor in data/ .*dict.en.txt",
    ),
    "a word more": (
        lambda f, _: appended(f, "more 1\n"),
        r"dict.en.txt has \d+ words, and there are 4 more, but .* has 64 of en in encoder.embed",
    ),
    "a word twice": (lambda f, _: appended(f, "a 1\n"), "dict.en.txt, line 61: 'a' is there alr"),
    "no count": (lambda f, _: appended(f, "word\n"), "dict.en.txt, line 61: it needs a word and"),
    "no text": (
        lambda f, _: (f / "data" / "dict.en.txt").write_bytes(b"\xff 1\n"),
        "dict.en.txt is not UTF-8",
    ),
    "merges of three": (
        lambda f, _: (f / "data" / "bpe.code").write_text("a b 3\n"),
        "bpe.code, line 1: a merge is of two symbols, as subword-nmt writes it, .* 'a b 3'",
    ),
    "two merges": (
        lambda f, _: (f / "data" / "codes").write_text("a b\n"),
        "several files of merges, leave one: .*bpe.code, .*codes",
    ),
}


@pytest.mark.parametrize("case", SPOILED)
def test_what_is_missing_or_damaged_is_named(case, whole, folder):
    spoil, message = SPOILED[case]
    spoil(folder, whole)
    told(folder, message)


def test_merges_that_are_told_of_must_be_there(whole, folder):
    _, settings, arrays = whole
    save_checkpoint(folder / BEST, content(settings | {"bpe": "subword_nmt"}, arrays))
    (folder / "data" / "bpe.code").unlink()
    told(folder, "cuts words by merges, but there is no bpe.code or .* beside it")


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("where", ["cfg", "last_optimizer_state"])
def test_a_pickle_is_never_run(where, protocol, folder, tmp_path):
    witness = tmp_path / "witness"
    with zipfile.ZipFile(folder / BEST, "w") as archive:
        program = pickle.dumps({"model": {}, where: Program(str(witness))}, protocol)
        archive.writestr("archive/data.pkl", program)
    told(folder, r"holds more than tensors and settings \(\w+.open\), and .* it is not opened")
    assert not witness.exists()


@pytest.mark.parametrize("name", ["os.system", "torch.load", "builtins.eval", "builtins.getattr"])
def test_a_name_is_not_even_looked_up(name, folder):
    save_checkpoint(folder / BEST, {"model": {}, "args": Named(name)})
    told(folder, rf"holds more than tensors and settings \({name}\)")


def test_classes_of_settings_are_neither_imported_nor_made(folder):
    class Made:
        def __reduce__(self):
            return Named("fairseq.dataclass.Anything"), ("rm", "-rf"), {"a": 1}

    save_checkpoint(folder / BEST, {"model": Made(), "numpy": Named("numpy.testing.runstring")})
    found = read_content(folder / BEST)
    assert dict(found["model"]) == {"a": 1} and type(found["model"]).__name__ == "InertObject"


@pytest.mark.parametrize(
    "lies",
    [
        (0, (5,), (1,)),  # more than there is
        (2, (3,), (1,)),
        (0, (2, 2), (3, 1)),
        (0, (1 << 20,), (0,)),  # it could be more than any memory has
        (0, (2,), (1, 1)),
    ],
)
def test_a_tensor_does_not_reach_beyond_its_numbers(lies, tmp_path):
    file = tmp_path / "x.pt"
    save_checkpoint(file, {"x": Tensor(np.zeros(4, np.float32), lies=lies)})
    with pytest.raises(DataError, match="x.pt is corrupt"):
        read_arrays(file, read_content(file))


def test_the_command_tells_it_in_one_line(folder, tmp_path):
    cut(folder, None)
    line = refused("import_model", f"--from={folder}", f"--workdir={tmp_path}/run")
    assert "checkpoint_best.pt is corrupt" in line and not (tmp_path / "run").exists()
    line = refused("import_model", f"--from={folder / 'data'}", f"--workdir={tmp_path}/run")
    assert "nor a .pt of fairseq's" in line
    with pytest.raises(DataError, match="dict.en.txt is not a folder"):
        folder_of(str(folder / "data" / "dict.en.txt"))
