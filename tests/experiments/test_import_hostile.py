"""Malicious folders: an import ends with a one-line error and leaves no files."""

import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from data.errors import DataError
from experiments import write_run
from interop.bert import read_bert
from interop.registry import read_folder
from tests.experiments import bart_folders, marian_folders, t5_folders
from tests.experiments.test_import_mistakes import change

HUGE = 10**9
DEEP = "[" * 100_000 + "]" * 100_000
SURROGATE = '{"x": "\\ud800"}'
MAKERS = {
    "marian": marian_folders.save_folder,
    "t5": t5_folders.save_folder,
    "nllb": lambda folder: bart_folders.save_folder(folder, "m2m_100"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    paths = {name: tmp_path_factory.mktemp(name) / "model" for name in MAKERS}
    for name, make in MAKERS.items():
        make(paths[name])
    return paths


@pytest.fixture
def copy(folders, tmp_path):
    return lambda name: shutil.copytree(folders[name], tmp_path / name)


def assert_rejected(folder, message, read=read_folder):
    with pytest.raises(DataError, match=message) as error:
        read(folder)
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


FIELDS = [
    ("marian", "config.json", dict(activation_function=["relu"]), "activation_function: expected"),
    ("marian", "config.json", dict(activation_function={}), "activation_function: expected str"),
    ("marian", "config.json", dict(dropout=10**400), "dropout: number out of range"),
    ("marian", "config.json", dict(d_model=10**400), "d_model: expected int <= 2147483647"),
    ("marian", "config.json", dict(scale_embedding="no"), "scale_embedding: expected bool"),
    ("marian", "config.json", dict(normalize_before=[[[[{}]]]]), "normalize_before=.* is not"),
    ("marian", "generation_config.json", dict(bad_words_ids=7), "bad_words_ids: expected array"),
    ("marian", "generation_config.json", dict(bad_words_ids=[7]), r"bad_words_ids\[0\]: expected"),
    ("marian", "generation_config.json", dict(pad_token_id="1"), "pad_token_id: expected"),
    ("marian", "generation_config.json", dict(early_stopping=[]), "early_stopping: expected"),
    ("marian", "generation_config.json", dict(max_length=10**400), "max_length: expected int <="),
    ("marian", "generation_config.json", dict(num_beams=0), ": num_beams=0 must be from 1"),
    (
        "marian",
        "generation_config.json",
        dict(length_penalty=1e300),
        ": length_penalty=1e.300 must be from -10",
    ),
    ("t5", "config.json", dict(layer_norm_epsilon=1e300), "layer_norm_epsilon: expected float <="),
    ("marian", "tokenizer_config.json", dict(pad_token=5), "pad_token: expected str"),
    ("marian", "tokenizer_config.json", dict(source_lang=5), "source_lang: expected str"),
    ("marian", "tokenizer_config.json", dict(added_tokens_decoder=[1]), "decoder: expected object"),
    ("marian", "tokenizer_config.json", dict(added_tokens_decoder="x"), "decoder: expected object"),
    (
        "marian",
        "tokenizer_config.json",
        dict(added_tokens_decoder={"5": {"special": True}}),
        "content: it is missing",
    ),
    (
        "marian",
        "tokenizer_config.json",
        dict(added_tokens_decoder={"five": {"content": "x"}}),
        "added_tokens_decoder: expected int",
    ),
    (
        "marian",
        "tokenizer_config.json",
        dict(additional_special_tokens=[None]),
        r"additional_special_tokens\[0\]: expected",
    ),
    ("marian", "vocab.json", {"<pad>": "3"}, r": \[...\]: expected int, got str"),
    ("marian", "vocab.json", {"<pad>": 3.5}, r": \[...\]: expected int, got float"),
    ("nllb", "tokenizer_config.json", dict(src_lang=5), "src_lang: expected str"),
    ("nllb", "tokenizer.json", dict(added_tokens=[{"id": "1", "content": ""}]), "id: expected"),
    ("nllb", "tokenizer.json", dict(model={"vocab": {"a": "1"}}), "model.vocab.*: expected int"),
    ("nllb", "tokenizer.json", dict(model={"vocab": [["a"]]}), "model.vocab.*: expected array of"),
    (
        "nllb",
        "tokenizer_config.json",
        dict(added_tokens_decoder={"999": {"content": "Der"}}),
        "added token 999, 'Der', differs from tokenizer.json",
    ),
    (
        "nllb",
        "tokenizer_config.json",
        dict(additional_special_tokens=["Der"]),
        "additional_special_tokens has 'Der', but only special tokens of tokenizer.json",
    ),
    ("t5", "config.json", dict(feed_forward_proj={}), "feed_forward_proj: expected str"),
    ("t5", "tokenizer_config.json", dict(extra_ids=HUGE), f"extra_ids={HUGE} more, but config"),
    ("t5", "tokenizer_config.json", dict(eos_token={}), "eos_token.content: it is missing"),
    (
        "t5",
        "config.json",
        dict(relative_attention_num_buckets=10**12),
        "relative_attention_num_buckets: expected int <=",
    ),
    (
        "t5",
        "config.json",
        dict(relative_attention_num_buckets=HUGE, relative_attention_max_distance=HUGE),
        f"model.relative_num_buckets={HUGE} and model.num_heads=4 would need more numbers",
    ),
    *(
        (name, "config.json", sizes, "would need more (numbers|tensors) than the weights have")
        for name, layers in (("marian", "encoder_layers"), ("nllb", "decoder_layers"),
                             ("t5", "num_layers"))
        for sizes in ({layers: 10**6}, dict(vocab_size=HUGE), dict(d_model=HUGE))
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "file", "fields", "message"), FIELDS)
def test_a_field_with_a_wrong_type_or_size_is_named(name, file, fields, message, copy):
    folder = copy(name)
    if file == "tokenizer.json":
        tokenizer = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps(tokenizer | fields))
    else:
        change(folder / file, **fields)
    assert_rejected(folder, f"{file}.*{message}" if "more" not in message else message)


@pytest.mark.parametrize("content", [DEEP, SURROGATE, f'{{"x": {DEEP}}}', "[]", "null", "", "{}\0"])
@pytest.mark.parametrize(
    ("name", "file"),
    [
        *(
            ("marian", file)
            for file in ("config", "generation_config", "tokenizer_config", "vocab")
        ),
        ("nllb", "tokenizer"),
    ],
)
def test_a_malformed_document_is_named(name, file, content, copy):
    folder = copy(name)
    (folder / f"{file}.json").write_text(content)
    assert_rejected(folder, f"{file}.json")


def utf_16(folder):
    content = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_bytes(content.encode("utf-16"))


def code_beyond_the_model(folder):
    """A language code in tokenizer.json that is outside the model's embedding."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append(
        tokenizer["added_tokens"][-1] | {"id": 5000, "content": "fra_Latn"}
    )
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    change(folder / "tokenizer_config.json", src_lang="fra_Latn")


def broken_charsmap(folder):
    """Makes the library panic."""
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def pipe(name):
    def corrupt(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return corrupt


def directory(name):
    def corrupt(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return corrupt


FILES = {
    "utf-16": ("nllb", utf_16, "tokenizer.json is not JSON"),
    "code": ("nllb", code_beyond_the_model, "--source_language is .* has no 'fra_Latn'"),
    "charsmap": ("nllb", broken_charsmap, "tokenizer.json: not a tokenizer"),
    **{
        f"{kind.__name__} {name}": (family, kind(name), f"{name} is not a regular file")
        for kind in (pipe, directory)
        for family, names in (
            ("marian", ("config.json", "generation_config.json", "vocab.json", "source.spm")),
            ("nllb", ("tokenizer.json", "tokenizer_config.json")),
            ("t5", ("spiece.model",)),
        )
        for name in names
    },
}  # fmt: skip


@pytest.mark.parametrize("case", FILES)
def test_a_special_or_invalid_file_is_named(case, copy):
    name, corrupt, message = FILES[case]
    folder = copy(name)
    corrupt(folder)
    assert_rejected(folder, message)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("marian", "generation_config.json"),
        ("marian", "model.safetensors"),
        ("nllb", "tokenizer.json"),
        ("t5", "spiece.model"),
    ],
)
def test_a_broken_link_is_not_a_missing_file(name, file, copy):
    """As left by an interrupted download; a missing file would mean default settings."""
    folder = copy(name)
    (folder / file).unlink()
    (folder / file).symlink_to("../blobs/abc")
    assert_rejected(folder, f"{file} is a link to ../blobs/abc, which is missing")


def test_a_very_large_max_length_is_capped(copy):
    folder = copy("marian")
    change(folder / "generation_config.json", max_length=2**31 - 1)
    assert read_folder(folder).experiment.search.max_length == 1 << 20


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("marian", "model.decoder.layers.1.fc1.bias"),
        ("marian", "final_logits_bias"),
        ("nllb", "model.shared.weight"),
        ("t5", "decoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
    ],
)
def test_non_finite_weights_are_rejected(name, tensor, value, copy):
    folder = copy(name)
    tensors = load_file(folder / "model.safetensors")
    tensors[tensor].reshape(-1)[-1] = value
    save_file(tensors, folder / "model.safetensors")
    assert_rejected(folder, f"model.safetensors: {tensor} has non-finite numbers: it is corrupt")


def test_an_encoders_sizes_are_limited_too(tmp_path):
    config = dict(vocab_size=HUGE, num_hidden_layers=HUGE, hidden_size=8, intermediate_size=8)
    config |= dict(num_attention_heads=2, max_position_embeddings=8)
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"embeddings.word_embeddings.weight": np.zeros((9, 8), np.float32)},
              tmp_path / "model.safetensors")  # fmt: skip
    assert_rejected(tmp_path, f"model.encoder_layers={HUGE} would need more tensors", read_bert)


@pytest.mark.parametrize("before", [None, "notes.txt"])
def test_a_failed_import_leaves_the_folder_unchanged(before, folders, tmp_path, monkeypatch):
    workdir = tmp_path / "deep" / "run"
    if before:
        workdir.mkdir(parents=True)
        (workdir / before).write_text("mine")
        (workdir / "tokenizer.model").write_text("of a run that never saved")

    def raise_disk_full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write_run.folders, "write_config", raise_disk_full)
    monkeypatch.setattr(write_run, "_move", lambda part, workdir: raise_disk_full())
    with pytest.raises(OSError, match="No space left"):
        write_run.write_run(workdir, read_folder(folders["marian"]))
    if before is None:
        assert not list(tmp_path.iterdir())
    else:
        assert {file.name for file in workdir.iterdir()} == {before, "tokenizer.model"}
