"""Marian's own models become runs that compute and say what its equations do."""

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
    Plain,
    quantised,
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


def theirs(ids):
    """Our ids as Marian's: without our PAD and BOS."""
    return [id - BOS - 1 for id in ids]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_and_says_what_the_equations_do(kind, tmp_path):
    settings = PLAIN | KINDS[kind]
    items = save_folder(
        tmp_path / "m", settings, items=random_items(settings, bias=kind != "untied")
    )
    imported = read_native(tmp_path / "m")
    plain, model = Plain(items, settings), Transformer(imported.experiment.model)
    rng = np.random.default_rng(0)
    for length in 1, 4, 9:
        src = np.append(rng.integers(4, SIZE + 2, length - 1), EOS)
        tgt = rng.integers(4, SIZE + 2, 6)
        ours = model.apply(
            {"params": imported.params}, jnp.asarray(src[None]), shift_right(jnp.asarray(tgt[None]))
        )[0]
        expected = plain.logits(plain.encode(theirs(src)), theirs(tgt[:-1]))
        np.testing.assert_allclose(ours[:, BOS + 1 :], expected, atol=1e-4)
        assert (ours[:, : BOS + 1] < -90).all()  # nothing beside what may be said
    texts = lines(12)[0]
    options = SearchOptions(**vars(imported.experiment.search) | {"max_length": 20})
    translator = Translator(model, imported.params, imported.vocabulary, options=options)
    cuts = processor(vocabulary())
    spoken = [plain.greedy([*cuts.encode(text), 0], 20) for text in texts]
    assert len(set(map(tuple, spoken))) > 6  # or the test could not fail
    for text, said, (best, *_) in zip(texts, spoken, translator.hypotheses(texts), strict=True):
        assert theirs(best.tokens) == said, text
        assert best.text == cuts.decode(said[:-1])


@pytest.mark.parametrize("joint", [True, False])
def test_a_shortlist_limits_what_is_said(joint, tmp_path):
    folder = tmp_path / "m"
    words = "lex.50.50.ende.s2t.bin"
    settings = PLAIN if joint else PLAIN | KINDS["decoder"]
    items = save_folder(folder, settings, {"shortlist": [words, False]})
    if not joint:
        (folder / "other.spm").write_bytes(vocabulary(SIZE, 1))
        told = DECODER | {"shortlist": [words], "vocabs": ["other.spm", "vocab.ende.spm"]}
        (folder / "config.yml").write_text(yaml.safe_dump(told))
    lists, frequent = save_shortlist(folder / words)
    imported, plain = read_native(folder), Plain(items, settings)
    assert imported.vocabulary.shared is joint
    model = Transformer(imported.experiment.model)
    options = SearchOptions(**vars(imported.experiment.search) | {"max_length": 20})
    limited, free = (
        Translator(model, imported.params, imported.vocabulary, options=options, shortlist=each)
        for each in (imported.shortlist, None)
    )
    texts = lines(12)[0]
    cuts, joins = (processor(vocabulary(SIZE, seed)) for seed in (not joint, 0))
    for text, (best, *_) in zip(texts, limited.hypotheses(texts), strict=True):
        source = [*cuts.encode(text), 0]
        allowed = {*range(frequent), *(word for id in source for word in lists[id])}
        allowed |= set(source) if joint else set()
        said = plain.greedy(source, 20, allowed)
        assert theirs(best.tokens) == said and best.text == joins.decode(said[:-1])
    assert limited.translate(texts) != free.translate(texts)


def test_files_of_all_kinds_hold_the_same(tmp_path):
    items = random_items(PLAIN)
    save_npz(tmp_path / "a.npz", items, PLAIN)
    save_bin(tmp_path / "a.bin", items, PLAIN)
    for file in tmp_path.iterdir():
        found, text = read_items(file)
        settings = model_settings(file, text)
        assert settings == PLAIN and found.keys() == items.keys()
        for name in items:
            np.testing.assert_array_equal(found[name], items[name])
    eight = quantised(items)
    assert {"Wemb", "decoder_l1_rnn_Wf", "encoder_l2_ffn_W1"} <= eight.keys()
    save_bin(tmp_path / "a.bin", items, PLAIN, eight)
    found, _ = read_items(tmp_path / "a.bin")
    for name, x in items.items():
        values, scale = eight.get(name, (x, 1.0))
        np.testing.assert_array_equal(found[name], values / np.float32(scale))
        np.testing.assert_allclose(found[name], x, atol=0.51 / scale)


def test_a_table_of_words_goes_with_two_models_of_subwords(tmp_path):
    """As OPUS-MT has them: two SentencePiece models cut, one table numbers."""
    cuts = [vocabulary(70, seed) for seed in (0, 1)]
    words = {"</s>": 0, "<unk>": 1, ">>de<<": 2}
    for model in map(processor, cuts):
        for id in range(2, model.get_piece_size()):
            words.setdefault(model.id_to_piece(id), len(words))
    folder = tmp_path / "m"
    settings = PLAIN | {"dim-vocabs": [len(words)] * 2}
    save_folder(folder, PLAIN)
    (folder / "vocab.yml").write_text(yaml.safe_dump(words, allow_unicode=True))
    (folder / "vocab.ende.spm").unlink()
    for name, model in zip(("source", "target"), cuts, strict=True):
        (folder / f"{name}.spm").write_bytes(model)
    told = {"models": ["model.ende.bin"], "vocabs": ["vocab.yml", "vocab.yml"]}
    (folder / "config.yml").write_text(yaml.safe_dump(told))
    items = random_items(PLAIN)
    for name in "Wemb", "decoder_ff_logit_out_b":
        axis = int(name.endswith("_b"))
        items[name] = np.take(items[name], np.arange(len(words)) % SIZE, axis=axis)
    save_bin(folder / "model.ende.bin", items, settings)
    imported = read_native(folder)
    search = imported.experiment.search
    assert (search.beam_size, search.penalty) == (12, "none")  # Marian's own defaults
    text = lines(1)[0][0]
    (ids,) = imported.vocabulary.source.encode([f">>de<< {text}"])
    pieces = [">>de<<", *processor(cuts[0]).encode(text, out_type=str)]
    assert theirs(ids) == [words.get(piece, 1) for piece in pieces]
    assert imported.vocabulary.shared


def test_words_of_a_table_are_as_they_stand(tmp_path):
    """YAML would have some of them be something else."""
    listed = ["</s>", "<unk>", *"no No on 007 1.50 12:30 << null ~ models vocabs".split()]
    text = "".join(f"{word}: {id}\n" for id, word in enumerate(listed))
    (tmp_path / "v.yml").write_text(text.replace(": 4\n", ': "4"\n'))
    for side in "source", "target":
        (tmp_path / f"{side}.spm").write_bytes(vocabulary(70))
    read, orders = read_vocabulary(*[tmp_path / "v.yml"] * 2)
    assert read.source.table.words == tuple(listed[2:])
    assert orders[0].tolist() == [0, 0, *range(len(listed))]


def test_text_is_text_to_a_model_that_cuts_it_itself(tmp_path):
    save_folder(tmp_path / "m")
    source = read_native(tmp_path / "m").vocabulary.source
    cuts = processor(vocabulary())
    for text in "a </s> b", ">>de<< a", "<unk>", "", "\u2603 a", " two  spaces ":
        assert theirs(*source.encode([text])) == cuts.encode(text), text


@pytest.mark.slow
def test_the_command_makes_a_run_that_others_take(tmp_path, text):
    words = "lex.50.50.ende.s2t.bin"
    save_folder(tmp_path / "m", decoder={"beam-size": 2, "shortlist": [words, False]})
    save_shortlist(tmp_path / "m" / words)
    workdir = tmp_path / "run"
    code, out, err = heed("import_model", f"--from={tmp_path / 'm'}", f"--workdir={workdir}")
    assert code == 0, err
    told = json.loads(out)
    assert told["search"]["beam_size"] == 2 and told["shortlist"] is True
    trained = load(workdir)
    assert trained.model.config.decoder_mixer == "ssru"
    assert trained.experiment.data.target_language == "de"
    said = []
    for flag in (), ("--shortlist=False",):
        code, out, err = heed("translate", f"--workdir={workdir}", *flag, stdin="one cat\ntwo\n")
        assert code == 0 and out.count("\n") == 2, err
        said.append(out)
    assert said[0] != said[1]
    pair = f"--source={text}/test.en", f"--target={text}/test.de"
    code, out, err = heed("score", f"--workdir={workdir}", *pair)
    assert code == 0 and len(out.splitlines()) == 6, err
    drawn = "--text=one cat", f"--output={tmp_path / 'maps'}"
    code, _, err = heed("attention", f"--workdir={workdir}", *drawn)
    assert code == 0, err
    files = {"attention.html", *(f"{k}.{e}" for k in ("encoder", "cross") for e in ("png", "svg"))}
    assert {file.name for file in (tmp_path / "maps").iterdir()} == files
    code, _, err = heed("export_model", f"--workdir={workdir}", "--to=safetensors",
                        f"--output={tmp_path / 'out'}")  # fmt: skip
    assert code == 0 and "the shortlist is not exported" in err
