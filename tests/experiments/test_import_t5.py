"""Imported T5 folders are runs; invalid ones are one-line errors with file and field."""

import json
import shutil

import numpy as np
import pytest

from data.batch import UNK
from data.errors import DataError
from data.marian_tokenizer import MarianTokenizer, MarianVocab
from data.vocabulary import Vocabulary
from decode.options import SearchOptions
from decode.translate import Translator
from experiments.workdir import load
from interop import export_hf_marian
from interop.registry import read_folder
from interop.t5 import read_t5, tying
from interop.t5_vocabulary import read_vocabulary
from model import ConfigError
from tests.experiments.commands import heed
from tests.experiments.marian_folders import lines, train_spm
from tests.experiments.t5_folders import save_folder, save_vocabulary, save_weights
from tests.experiments.test_import_mistakes import change


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5") / "model"
    save_folder(folder)
    return folder


@pytest.fixture
def folder(t5, tmp_path):
    return shutil.copytree(t5, tmp_path / "model")


def test_the_command_writes_a_run_that_translates(t5, tmp_path):
    code, out, err = heed("import_model", f"--from={t5}", f"--workdir={tmp_path}/run")
    assert code == 0, err
    trained, reference = load(tmp_path / "run"), read_folder(t5)
    assert json.loads(out)["search"]["max_length"] == trained.experiment.search.max_length == 20
    for side in "encoder_bias", "decoder_bias":
        actual, expected = (params[side]["table"] for params in (trained.params, reference.params))
        np.testing.assert_array_equal(actual, expected)
    options = SearchOptions(**vars(trained.experiment.search))
    model = trained.model, trained.params, trained.vocabulary
    text = ["translate English to German: I am a student.", "a <extra_id_3> b </s>", ""]
    n_best = Translator(*model, trained.mesh, options).hypotheses(text)
    assert trained.vocabulary.source.pieces(n_best[1][0].parts[0][0])[-1] == "</s>"
    assert all(1 <= len(best.tokens) <= 20 for best, *_ in n_best[:2]) and n_best[2][0].text == ""
    with pytest.raises(ConfigError, match="model.norm=pre has no counterpart"):
        export_hf_marian.check(trained.model.config)


def test_sentinels_are_tokens_and_spare_ids_are_not_decoded(t5, folder):
    (side, _) = read_folder(t5).vocabulary
    (ids,) = side.encode(["x <extra_id_0>y<extra_id_9> <spare_127>"])
    names = side.pieces(ids)
    assert names.count("<extra_id_0>") == names.count("<extra_id_9>") == 1
    assert side.vocab_size == 129 and side.pieces([128]) == ["<spare_127>"]
    assert side.pieces(range(5)) == ["<pad>", "<s>", "</s>", "<unk>", side.table.words[0]]
    assert side.decode([[128, *ids, 120]]) == side.decode([ids])
    assert ">>fr<<" not in side.table.words and 128 not in ids
    sentinels = ["<pad>", "</s>", "<extra_id_0>"]  # as written by transformers 5
    change(folder / "tokenizer_config.json", extra_special_tokens=sentinels)
    assert read_folder(folder).vocabulary.digest() == read_folder(t5).vocabulary.digest()
    plain = MarianTokenizer.make(*side.models, MarianVocab(("a",))).to_bytes()
    assert not any(name in plain for name in (b"codes", b"spare"))  # unchanged format
    reloaded = MarianTokenizer(side.to_bytes())
    assert reloaded.table == side.table and Vocabulary(reloaded, reloaded).shared


def test_equal_tables_are_tied(tmp_path):
    save_vocabulary(tmp_path)
    for tied, scaled, changes in (
        (True, True, {}),
        (False, True, {}),
        (True, False, dict(model_type="mt5")),
        (True, False, dict(tie_word_embeddings=False)),
        (True, True, dict(tie_word_embeddings=False, scale_decoder_outputs=True)),
    ):
        save_weights(tmp_path, tied=tied, feed_forward_proj="relu", **changes)
        imported = read_t5(tmp_path)
        assert imported.experiment.model.tying == ("all" if tied else "none")
        norms = imported.params["encoder_norm"]["scale"], imported.params["decoder_norm"]["scale"]
        np.testing.assert_allclose(norms[0] * (32**-0.5 if scaled else 1), norms[1], rtol=1e-6)


def test_tying_is_detected_from_the_tables():
    table, other = np.ones((2, 2)), np.zeros((2, 2))
    names = "shared.weight", "encoder.embed_tokens.weight", "lm_head.weight"
    assert tying(dict.fromkeys(names, table)) == tying({names[0]: table}) == "all"
    assert tying({names[0]: table, names[1]: other}) == "decoder"
    assert tying({names[0]: table, names[2]: other}) == "none"


def test_byte_fallback_is_supported(tmp_path):
    """As in mT5: unknown characters become bytes and are decoded again."""
    english, _ = lines(100)
    marks = dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1, byte_fallback=True)
    save_vocabulary(tmp_path, extra_ids=0)
    (tmp_path / "spiece.model").write_bytes(
        train_spm(english, 340, hard_vocab_limit=False, **marks)
    )
    side = read_vocabulary(tmp_path, 384).source
    (ids,) = side.encode(["I am 中."])
    assert side.pieces(ids)[-4:-1] == ["<0xE4>", "<0xB8>", "<0xAD>"] and UNK not in ids
    assert side.decode([ids]) == ["I am 中."]


def only_json(folder):
    (folder / "spiece.model").rename(folder / "tokenizer.json")


def another_vocabulary(folder):
    (folder / "spiece.model").write_bytes(train_spm(lines(100)[0], 60))


CORRUPT = {
    "no SentencePiece": (lambda f: (f / "spiece.model").unlink(), "spiece.model is missing"),
    "JSON": (only_json, "spiece.model is missing, and tokenizer.json alone is not supported: copy"),
    "corrupt": (
        lambda f: (f / "spiece.model").write_bytes(b"x"),
        "spiece.model: not a SentencePiece model",
    ),
    "other ids": (another_vocabulary, "spiece.model: padding, EOS and unknown word have the ids"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "found no model.safetensors"),
}
CONFIG = {
    "kind": (dict(model_type="umt5"), "model_type='umt5' is not supported, only bart, .*, t5"),
    "activation": (dict(feed_forward_proj="tanh"), "feed_forward_proj='tanh' is not supported"),
    "gate": (dict(is_gated_act=True), "is_gated_act=true is not supported, only false"),
    "function": (dict(dense_act_fn="gelu"), 'dense_act_fn="gelu" is not supported, only "relu"'),
    "encoder": (dict(is_encoder_decoder=False), "is_encoder_decoder=false is not supported"),
    "start": (dict(decoder_start_token_id=5), "decoder_start_token_id=5 is not supported, only 0"),
    "buckets": (dict(relative_attention_num_buckets=7), "relative_num_buckets=7 must be even"),
    "other sizes": (dict(d_kv=8), r"layer.0.SelfAttention.q.weight has the shape \[24, 32\], not "),
    "more layers": (dict(num_layers=3), "lacks encoder.block.2.layer.0.SelfAttention.q.weight"),
    "more heads": (
        dict(relative_attention_num_buckets=10),
        r"bias.weight has the shape \[8, 4\], not ",
    ),
    "a gated file": (dict(feed_forward_proj="gated-gelu"), "lacks encoder.block.0.*wi_0.weight"),
    "too few words": (dict(vocab_size=90), "spiece.model has .* extra_ids=10 more, but config.js"),
    "no size": (dict(d_ff="absent"), "config.json: d_ff: it is missing"),
}
TOKENIZER = {
    "class": (dict(tokenizer_class="ByT5Tokenizer"), 'tokenizer_class="ByT5Tokenizer" is not'),
    "sampling": (dict(sp_model_kwargs={"alpha": 0.1}), "sp_model_kwargs="),
    "end": (dict(eos_token={"content": "<end>"}), 'eos_token="<end>" is not supported, only "</s'),
    "a word": (dict(additional_special_tokens=["<sep>"]), "additional_special_tokens has '<sep>'"),
    "sentinel": (
        dict(additional_special_tokens=["<extra_id_10>"]),
        "has '<extra_id_10>', but only",
    ),
    "added": (dict(added_tokens_decoder={"99": {"content": "<b>"}}), "added token 99, '<b>', is"),
}
CHANGED = [
    *(("config.json", *case) for case in CONFIG.values()),
    *(("tokenizer_config.json", *case) for case in TOKENIZER.values()),
    ("generation_config.json", dict(do_sample=True), "do_sample=true is not supported"),
]


@pytest.mark.parametrize("case", CORRUPT)
def test_missing_and_corrupt_files_are_named(case, folder):
    corrupt, message = CORRUPT[case]
    corrupt(folder)
    with pytest.raises(DataError, match=message) as error:
        read_folder(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize(("name", "fields", "message"), CHANGED)
def test_an_unsupported_field_is_named(name, fields, message, folder):
    change(folder / name, **fields)
    with pytest.raises(DataError, match=message) as error:
        read_folder(folder)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
