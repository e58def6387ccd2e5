"""Imported native Marian models: same logits and outputs as the plain NumPy model."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from data.batch import BOS, EOS, shift_right
from data.marian_tokenizer import processor
from decode.options import SearchOptions
from decode.translate import Translator
from experiments.workdir import load
from interop.marian.binary import read_items
from interop.marian.model import read_native
from interop.marian.settings import model_settings
from interop.marian.vocabulary import read_vocabulary
from model import Transformer
from tests.experiments.commands import heed
from tests.experiments.marian_folders import lines
from tests.experiments.native_folders import (
    DECODER,
    PLAIN,
    SIZE,
    ReferenceModel,
    quantized,
    random_items,
    save_bin,
    save_folder,
    save_npz,
    save_shortlist,
    vocabulary,
)

KINDS = {
    "student": {},
    "attention": {"transformer-decoder-autoreg": "self-attention"},
    "untied": {
        "tied-embeddings-all": False,
        "output-omit-bias": True,
        "transformer-ffn-activation": "swish",
        "enc-depth": 1,
        "dec-depth": 3,
    },
    "decoder": {"tied-embeddings-all": False, "tied-embeddings": True, "transformer-heads": 4},
}


def marian_ids(ids):
    """Heed's ids as Marian's, which have no PAD and BOS."""
    return [id - BOS - 1 for id in ids]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_outputs_equal_the_plain_model(kind, tmp_path):
    settings = PLAIN | KINDS[kind]
    items = save_folder(
        tmp_path / "m", settings, items=random_items(settings, bias=kind != "untied")
    )
    imported = read_native(tmp_path / "m")
    reference, model = ReferenceModel(items, settings), Transformer(imported.experiment.model)
    rng = np.random.default_rng(0)
    for length in 1, 4, 9:
        src = np.append(rng.integers(4, SIZE + 2, length - 1), EOS)
        tgt = rng.integers(4, SIZE + 2, 6)
        actual = model.apply(
            {"params": imported.params}, jnp.asarray(src[None]), shift_right(jnp.asarray(tgt[None]))
        )[0]
        expected = reference.logits(reference.encode(marian_ids(src)), marian_ids(tgt[:-1]))
        np.testing.assert_allclose(actual[:, BOS + 1 :], expected, atol=2e-4)
        assert (actual[:, : BOS + 1] < -90).all()  # masked ids
    texts = lines(12)[0]
    options = SearchOptions(**vars(imported.experiment.search) | {"max_length": 20})
    translator = Translator(model, imported.params, imported.vocabulary, options=options)
    sentencepiece = processor(vocabulary())
    outputs = [reference.greedy([*sentencepiece.encode(text), 0], 20) for text in texts]
    assert len(set(map(tuple, outputs))) > 6  # guards against a vacuous test
    for text, output, (best, *_) in zip(texts, outputs, translator.hypotheses(texts), strict=True):
        assert marian_ids(best.tokens) == output, text
        assert best.text == sentencepiece.decode(output[:-1])


@pytest.mark.parametrize("shared", [True, False])
def test_a_shortlist_limits_the_outputs(shared, tmp_path):
    folder = tmp_path / "m"
    file_name = "lex.50.50.ende.s2t.bin"
    settings = PLAIN if shared else PLAIN | KINDS["decoder"]
    items = save_folder(folder, settings, {"shortlist": [file_name, False]})
    if not shared:
        (folder / "other.spm").write_bytes(vocabulary(SIZE, 1))
        config = DECODER | {"shortlist": [file_name], "vocabs": ["other.spm", "vocab.ende.spm"]}
        (folder / "config.yml").write_text(yaml.safe_dump(config))
    lists, frequent = save_shortlist(folder / file_name)
    imported, reference = read_native(folder), ReferenceModel(items, settings)
    assert imported.vocabulary.shared is shared
    model = Transformer(imported.experiment.model)
    options = SearchOptions(**vars(imported.experiment.search) | {"max_length": 20})
    limited, free = (
        Translator(
            model, imported.params, imported.vocabulary, options=options, shortlist=shortlist
        )
        for shortlist in (imported.shortlist, None)
    )
    texts = lines(12)[0]
    source_spm, target_spm = (processor(vocabulary(SIZE, seed)) for seed in (not shared, 0))
    for text, (best, *_) in zip(texts, limited.hypotheses(texts), strict=True):
        source = [*source_spm.encode(text), 0]
        allowed = {*range(frequent), *(word for id in source for word in lists[id])}
        allowed |= set(source) if shared else set()
        output = reference.greedy(source, 20, allowed)
        assert marian_ids(best.tokens) == output and best.text == target_spm.decode(output[:-1])
    assert limited.translate(texts) != free.translate(texts)


def test_npz_and_bin_files_have_the_same_arrays(tmp_path):
    items = random_items(PLAIN)
    save_npz(tmp_path / "a.npz", items, PLAIN)
    save_bin(tmp_path / "a.bin", items, PLAIN)
    for file in tmp_path.iterdir():
        read_back, text = read_items(file)
        settings = model_settings(file, text)
        assert settings == PLAIN and read_back.keys() == items.keys()
        for name in items:
            np.testing.assert_array_equal(read_back[name], items[name])
    quantized_items = quantized(items)
    assert {"Wemb", "decoder_l1_rnn_Wf", "encoder_l2_ffn_W1"} <= quantized_items.keys()
    save_bin(tmp_path / "a.bin", items, PLAIN, quantized_items)
    read_back, _ = read_items(tmp_path / "a.bin")
    for name, x in items.items():
        values, scale = quantized_items.get(name, (x, 1.0))
        np.testing.assert_array_equal(read_back[name], values / np.float32(scale))
        np.testing.assert_allclose(read_back[name], x, atol=0.51 / scale)


def test_a_yaml_vocabulary_with_two_sentencepiece_models(tmp_path):
    """As in OPUS-MT: two SentencePiece models and one table of ids."""
    spm_models = [vocabulary(70, seed) for seed in (0, 1)]
    words = {"</s>": 0, "<unk>": 1, ">>de<<": 2}
    for model in map(processor, spm_models):
        for id in range(2, model.get_piece_size()):
            words.setdefault(model.id_to_piece(id), len(words))
    folder = tmp_path / "m"
    settings = PLAIN | {"dim-vocabs": [len(words)] * 2}
    save_folder(folder, PLAIN)
    (folder / "vocab.yml").write_text(yaml.safe_dump(words, allow_unicode=True))
    (folder / "vocab.ende.spm").unlink()
    for name, model in zip(("source", "target"), spm_models, strict=True):
        (folder / f"{name}.spm").write_bytes(model)
    config = {"models": ["model.ende.bin"], "vocabs": ["vocab.yml", "vocab.yml"]}
    (folder / "config.yml").write_text(yaml.safe_dump(config))
    items = random_items(PLAIN)
    for name in "Wemb", "decoder_ff_logit_out_b":
        axis = int(name.endswith("_b"))
        items[name] = np.take(items[name], np.arange(len(words)) % SIZE, axis=axis)
    save_bin(folder / "model.ende.bin", items, settings)
    imported = read_native(folder)
    search = imported.experiment.search
    assert (search.beam_size, search.penalty) == (12, "none")  # Marian's defaults
    text = lines(1)[0][0]
    (ids,) = imported.vocabulary.source.encode([f">>de<< {text}"])
    pieces = [">>de<<", *processor(spm_models[0]).encode(text, out_type=str)]
    assert marian_ids(ids) == [words.get(piece, 1) for piece in pieces]
    assert imported.vocabulary.shared


def test_words_of_a_yaml_vocabulary_are_strings(tmp_path):
    """YAML would convert some of them to other types."""
    words = ["</s>", "<unk>", *"no No on 007 1.50 12:30 << null ~ models vocabs".split()]
    text = "".join(f"{word}: {id}\n" for id, word in enumerate(words))
    (tmp_path / "v.yml").write_text(text.replace(": 4\n", ': "4"\n'))
    for side in "source", "target":
        (tmp_path / f"{side}.spm").write_bytes(vocabulary(70))
    tokenizers, orders = read_vocabulary(*[tmp_path / "v.yml"] * 2)
    assert tokenizers.source.table.words == tuple(words[2:])
    assert orders[0].tolist() == [0, 0, *range(len(words))]


def test_special_tokens_in_text_are_ordinary_text(tmp_path):
    save_folder(tmp_path / "m")
    source = read_native(tmp_path / "m").vocabulary.source
    sentencepiece = processor(vocabulary())
    for text in "a </s> b", ">>de<< a", "<unk>", "", "\u2603 a", " two  spaces ":
        assert marian_ids(*source.encode([text])) == sentencepiece.encode(text), text


@pytest.mark.slow
def test_the_command_writes_a_run_that_other_commands_accept(tmp_path, text):
    shortlist = "lex.50.50.ende.s2t.bin"
    save_folder(tmp_path / "m", decoder={"beam-size": 2, "shortlist": [shortlist, False]})
    save_shortlist(tmp_path / "m" / shortlist)
    workdir = tmp_path / "run"
    code, out, err = heed("import_model", f"--from={tmp_path / 'm'}", f"--workdir={workdir}")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["search"]["beam_size"] == 2 and summary["shortlist"] is True
    trained = load(workdir)
    assert trained.model.config.decoder_mixer == "ssru"
    assert trained.experiment.data.target_language == "de"
    outputs = []
    for flag in (), ("--shortlist=False",):
        code, out, err = heed("translate", f"--workdir={workdir}", *flag, stdin="one cat\ntwo\n")
        assert code == 0 and out.count("\n") == 2, err
        outputs.append(out)
    assert outputs[0] != outputs[1]
    pair = f"--source={text}/test.en", f"--target={text}/test.de"
    code, out, err = heed("score", f"--workdir={workdir}", *pair)
    assert code == 0 and len(out.splitlines()) == 6, err
    attention_args = "--text=one cat", f"--output={tmp_path / 'maps'}"
    code, _, err = heed("attention", f"--workdir={workdir}", *attention_args)
    assert code == 0, err
    files = {"attention.html", *(f"{k}.{e}" for k in ("encoder", "cross") for e in ("png", "svg"))}
    assert {file.name for file in (tmp_path / "maps").iterdir()} == files
    code, _, err = heed("export_model", f"--workdir={workdir}", "--to=safetensors",
                        f"--output={tmp_path / 'out'}")  # fmt: skip
    assert code == 0 and "the shortlist is not exported" in err
