"""Invalid Hugging Face folders: one-line errors that name file and field; no code is run."""

import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest

from data.errors import DataError
from decode.options import InputError
from experiments.write_run import check_free, write_run
from interop.hf_marian import read_marian
from interop.tensor_files import read_tensors
from model import ConfigError
from tests.experiments.commands import error_line
from tests.experiments.pickles import Program


@pytest.fixture
def folder(marian, tmp_path):
    return shutil.copytree(marian, tmp_path / "model")


def change(file, **fields):
    content = json.loads(file.read_text()) | fields
    file.write_text(json.dumps({k: v for k, v in content.items() if v != "absent"}))


def truncate(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def write_html(folder):
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>")


def remove_word(folder):
    words = json.loads((folder / "vocab.json").read_text())
    del words[">>fr<<"]
    (folder / "vocab.json").write_text(json.dumps(words))


CORRUPT = {
    "truncated": (truncate, "model.safetensors is corrupt or not a safetensors file"),
    "other file": (write_html, "model.safetensors is corrupt or not a safetensors file"),
    "no weights": (
        lambda f: (f / "model.safetensors").unlink(),
        "found no model.safetensors and no pytorch_model.bin",
    ),
    "no vocabulary": (lambda f: (f / "vocab.json").unlink(), "vocab.json is missing"),
    "no model of subwords": (lambda f: (f / "target.spm").unlink(), "target.spm is missing"),
    "invalid SentencePiece": (
        lambda f: (f / "source.spm").write_bytes(b"x"),
        "source.spm: not a SentencePiece model",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "invalid JSON": (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
    "a list": (
        lambda f: (f / "vocab.json").write_text("[]"),
        "vocab.json: expected object",
    ),
    "missing word": (remove_word, r"vocab.json has \d+ words, but config.json says vocab_size="),
}
CONFIG = {
    "other sizes": (
        dict(encoder_ffn_dim=64, decoder_ffn_dim=64),
        r"fc1.weight has the shape \[48, 32\], not",
    ),
    "more layers": (dict(decoder_layers=3), "lacks model.decoder.layers.2.self_attn.q_proj.weight"),
    "no size": (dict(d_model="absent"), "config.json: d_model: it is missing"),
    "size as text": (dict(encoder_layers="6"), "encoder_layers: expected int, got str"),
    "another kind": (dict(model_type="bart"), "model_type='bart' is not supported, only 'marian'"),
    "an activation": (dict(activation_function="tanh"), "activation_function='tanh' is not"),
    "pre-norm": (dict(normalize_before=True), "normalize_before=true is not supported, only false"),
    "sides that differ": (dict(decoder_ffn_dim=64), "encoder_ffn_dim=48 and decoder_ffn_dim=64"),
    "heads": (dict(encoder_attention_heads=5, decoder_attention_heads=5), "is not a multiple of"),
}
GENERATION = {
    "sampling": (dict(do_sample=True), "do_sample=true is not supported, only false"),
    "bad words": (dict(bad_words_ids=[[5, 6]]), r"bad_words_ids has \[5, 6\], but only"),
    "start": (dict(decoder_start_token_id=0), "decoder_start_token_id=0 is not supported"),
    "end": (dict(eos_token_id=[0, 5]), r"eos_token_id=\[0, 5\] is not supported, only 0"),
    "stopping": (dict(early_stopping="soon"), "early_stopping='soon' is not supported"),
    "beams": (dict(num_beams=-1), "num_beams: expected int >= 0"),
}
SPACES = ({"9": {"content": "<b>", name: True}} for name in ("lstrip", "rstrip"))
TOKENIZER = {
    **{
        f"spaces {n}": (dict(added_tokens_decoder=added), "added token 9 strips spaces")
        for n, added in enumerate(SPACES)
    },
    "class": (dict(tokenizer_class="BartTokenizer"), 'tokenizer_class="BartTokenizer" is not'),
    "sampling": (dict(sp_model_kwargs={"alpha": 0.1}), "sp_model_kwargs="),
    "mark": (dict(pad_token="[PAD]"), r"vocab.json lacks '\[PAD\]', which .*tokenizer_config"),
    "two tables": (dict(separate_vocabs=True), "separate_vocabs is not possible with shared"),
}
CHANGED = [
    *(("config.json", *case) for case in CONFIG.values()),
    *(("generation_config.json", *case) for case in GENERATION.values()),
    *(("tokenizer_config.json", *case) for case in TOKENIZER.values()),
]


@pytest.mark.parametrize("case", CORRUPT)
def test_missing_and_corrupt_files_are_named(case, folder):
    corrupt, message = CORRUPT[case]
    corrupt(folder)
    with pytest.raises(DataError, match=message) as error:
        read_marian(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize(("name", "fields", "message"), CHANGED)
def test_an_unsupported_field_is_named(name, fields, message, folder):
    change(folder / name, **fields)
    with pytest.raises(DataError, match=message) as error:
        read_marian(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


def test_invalid_search_settings_are_rejected_before_writing(folder, tmp_path):
    change(folder / "generation_config.json", num_beams=5000)
    with pytest.raises(InputError, match="--beam_size=5000 must be from 1 to the vocabulary's"):
        write_run(tmp_path / "run", read_marian(folder))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_folder_with_a_run_is_not_overwritten(run, folder):
    with pytest.raises(ConfigError, match="already has a run: choose another folder"):
        check_free(run[0])


def archive(file, content):
    """Writes a PyTorch archive with a pickle."""
    with zipfile.ZipFile(file, "w") as archive_file:
        archive_file.writestr("archive/data.pkl", content)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_is_never_executed(protocol, folder, tmp_path):
    (folder / "model.safetensors").unlink()
    marker = tmp_path / "marker"
    program = pickle.dumps({"model.shared.weight": Program(str(marker))}, protocol)
    archive(folder / "pytorch_model.bin", program)
    with pytest.raises(
        DataError, match=r"has more than tensors and settings \(\w+.open\).* is not opened"
    ):
        read_marian(folder)
    assert not marker.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04broken", pickle.dumps({})])
def test_an_invalid_archive_is_rejected(content, folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(DataError, match="pytorch_model.bin is corrupt or not an archive"):
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


def test_the_command_prints_a_one_line_error(folder, tmp_path):
    truncate(folder)
    line = error_line("import_model", f"--from={folder}", f"--workdir={tmp_path}/run")
    assert "model.safetensors is corrupt" in line and not (tmp_path / "run").exists()
