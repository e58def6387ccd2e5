"""What is wrong with a folder to import is one line that names file and field; nothing is run."""

import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest

from data.errors import DataError
from decode.options import InputError
from interop.hf_marian import read_marian
from interop.tensor_files import read_tensors
from interop.write_run import check_free, write_run
from model import ConfigError
from tests.experiments.commands import refused
from tests.experiments.pickles import Program


@pytest.fixture
def folder(marian, tmp_path):
    return shutil.copytree(marian, tmp_path / "model")


def change(file, **fields):
    found = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({k: v for k, v in found.items() if v != "absent"}))


def cut(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def not_tensors(folder):
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>")


def one_word_less(folder):
    words = json.loads((folder / "vocab.json").read_text())
    del words[">>fr<<"]
    (folder / "vocab.json").write_text(json.dumps(words))


SPOILED = {
    "truncated": (cut, "model.safetensors is corrupt or no safetensors file"),
    "other file": (not_tensors, "model.safetensors is corrupt or no safetensors file"),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        "there is neither model.safetensors nor pytorch_model.bin",
    ),
    "no vocabulary": (lambda f: (f / "vocab.json").unlink(), "vocab.json is missing"),
    "no model of subwords": (lambda f: (f / "target.spm").unlink(), "target.spm is missing"),
    "no SentencePiece": (
        lambda f: (f / "source.spm").write_bytes(b"x"),
        "source.spm: not a SentencePiece model",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
    "a list": (
        lambda f: (f / "vocab.json").write_text("[]"),
        "vocab.json: expected object",
    ),
    "a word less": (one_word_less, r"vocab.json has \d+ words, and config.json says vocab_size="),
}
CONFIG = {
    "other sizes": (dict(encoder_ffn_dim=64, decoder_ffn_dim=64), r"fc1.weight is \[48, 32\], but"),
    "more layers": (dict(decoder_layers=3), "lacks model.decoder.layers.2.self_attn.q_proj.weight"),
    "no size": (dict(d_model="absent"), "config.json: d_model: it is missing"),
    "text for a size": (dict(encoder_layers="6"), "encoder_layers: expected int, got str"),
    "another kind": (dict(model_type="bart"), "model_type='bart' is not supported, only 'marian'"),
    "an activation": (dict(activation_function="tanh"), "activation_function='tanh' is not"),
    "pre-norm": (dict(normalize_before=True), "normalize_before=true is not supported, only false"),
    "sides that differ": (dict(decoder_ffn_dim=64), "encoder_ffn_dim=48 and decoder_ffn_dim=64"),
    "heads": (dict(encoder_attention_heads=5, decoder_attention_heads=5), "is not a multiple of"),
}
GENERATION = {
    "sampling": (dict(do_sample=True), "do_sample=true is not supported, only false"),
    "bad words": (dict(bad_words_ids=[[5, 6]]), r"bad_words_ids has \[5, 6\], and only"),
    "start": (dict(decoder_start_token_id=0), "decoder_start_token_id=0 is not supported"),
    "end": (dict(eos_token_id=[0, 5]), r"eos_token_id=\[0, 5\] is not supported, only 0"),
    "stopping": (dict(early_stopping="soon"), "early_stopping='soon' is not supported"),
    "beams": (dict(num_beams=-1), "num_beams: expected int >= 0"),
}
SPACES = ({"9": {"content": "<b>", name: True}} for name in ("lstrip", "rstrip"))
TOKENIZER = {
    **{
        f"spaces {n}": (dict(added_tokens_decoder=added), "added token 9 takes spaces away")
        for n, added in enumerate(SPACES)
    },
    "class": (dict(tokenizer_class="BartTokenizer"), 'tokenizer_class="BartTokenizer" is not'),
    "sampling": (dict(sp_model_kwargs={"alpha": 0.1}), "sp_model_kwargs="),
    "mark": (dict(pad_token="[PAD]"), r"vocab.json lacks '\[PAD\]', which .*tokenizer_config"),
    "two tables": (dict(separate_vocabs=True), "separate_vocabs does not go with shared"),
}
CHANGED = [
    *(("config.json", *case) for case in CONFIG.values()),
    *(("generation_config.json", *case) for case in GENERATION.values()),
    *(("tokenizer_config.json", *case) for case in TOKENIZER.values()),
]


@pytest.mark.parametrize("case", SPOILED)
def test_a_file_that_is_missing_or_damaged_is_named(case, folder):
    spoil, message = SPOILED[case]
    spoil(folder)
    with pytest.raises(DataError, match=message) as told:
        read_marian(folder)
    assert "\n" not in str(told.value) and str(folder) in str(told.value)


@pytest.mark.parametrize(("name", "fields", "message"), CHANGED)
def test_a_field_that_is_not_supported_is_named(name, fields, message, folder):
    change(folder / name, **fields)
    with pytest.raises(DataError, match=message) as told:
        read_marian(folder)
    assert "\n" not in str(told.value) and str(folder) in str(told.value)


def test_what_no_search_has_is_refused_before_anything_is_written(folder, tmp_path):
    change(folder / "generation_config.json", num_beams=5000)
    with pytest.raises(InputError, match="--beam_size=5000 must be from 1 to the vocabulary's"):
        write_run(tmp_path / "run", read_marian(folder))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_folder_that_holds_a_run_is_left_as_it_is(run, folder):
    with pytest.raises(ConfigError, match="holds a run already: choose another folder"):
        check_free(run[0])


def archive(file, content):
    """PyTorch's archive around a pickle."""
    with zipfile.ZipFile(file, "w") as found:
        found.writestr("archive/data.pkl", content)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_is_never_run(protocol, folder, tmp_path):
    (folder / "model.safetensors").unlink()
    witness = tmp_path / "witness"
    program = pickle.dumps({"model.shared.weight": Program(str(witness))}, protocol)
    archive(folder / "pytorch_model.bin", program)
    with pytest.raises(
        DataError, match=r"holds more than tensors and settings \(\w+.open\).* is not opened"
    ):
        read_marian(folder)
    assert not witness.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", pickle.dumps({})])
def test_a_pickle_of_no_archive_is_told(content, folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(DataError, match="pytorch_model.bin is corrupt or no archive"):
        read_tensors(folder)


def test_half_precision_is_read(folder):
    import jax.numpy as jnp
    from safetensors.flax import save_file

    _, tensors = read_tensors(folder)
    save_file(
        {name: jnp.asarray(x, jnp.bfloat16) for name, x in tensors.items()},
        folder / "model.safetensors",
    )
    for name, x in read_tensors(folder)[1].items():
        assert x.dtype == np.float32
        np.testing.assert_allclose(x, tensors[name], rtol=2**-8)


def test_the_command_tells_it_in_one_line(folder, tmp_path):
    cut(folder)
    line = refused("import_model", f"--from={folder}", f"--workdir={tmp_path}/run")
    assert "model.safetensors is corrupt" in line and not (tmp_path / "run").exists()
