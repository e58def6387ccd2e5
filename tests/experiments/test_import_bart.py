"""Imported BART, mBART-50 and NLLB: language codes, forced ids, and invalid folders."""

import json
import shutil
import sys
from dataclasses import replace

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from data import hf_tokenizer
from data.batch import BOS, EOS, PAD, UNK
from data.errors import DataError
from data.vocabulary import read_tokenizer
from decode.options import InputError
from decode.phrase_encoding import encode_phrase
from decode.translate import Translator
from experiments.config import SearchConfig
from experiments.resolve import inherit_model_config
from experiments.translator import build_translator
from experiments.workdir import load
from experiments.write_run import write_run
from interop.registry import read_folder
from tests.experiments.bart_folders import CODES, save_folder
from tests.experiments.test_import_mistakes import change


def assert_same_params(left, right):
    assert jax.tree.leaves(left.params)
    jax.tree.map(np.testing.assert_array_equal, left.params, right.params)


@pytest.fixture(scope="module")
def nllb(tmp_path_factory):
    """A folder, its tokenizer, and the imported run."""
    folder = tmp_path_factory.mktemp("nllb")
    library = save_folder(folder, "m2m_100")
    workdir = folder / "run"
    write_run(workdir, read_folder(folder))
    return folder, library, load(workdir)


@pytest.fixture(scope="module")
def mbart(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mbart")
    save_folder(folder, "mbart")
    return folder


def translator(trained) -> Translator:
    arguments = trained.model, trained.params, trained.vocabulary, trained.mesh
    return build_translator(trained.experiment, *arguments)


def test_texts_start_with_their_language_code(nllb):
    _, library, trained = nllb
    for side, code in zip(trained.vocabulary, CODES, strict=True):
        (ids, blank) = side.encode(["a green book", "  "])
        assert blank == [] and ids[0] == side.prefix[0] and len(ids) > 2
        hf_ids = [side.order[id] for id in ids]
        assert hf_ids == [library.token_to_id(code), *library.encode("a green book").ids]
        assert side.pieces(ids)[0] == code and side.decode([ids]) == ["a green book"]
        (spelled_out,) = side.encode(["a <pad> b"])  # not a PAD id
        assert UNK in spelled_out and PAD not in spelled_out
        reloaded = read_tokenizer(side.to_bytes())
        assert type(reloaded) is type(side) and reloaded.encode(["a green book"]) == [ids]


@pytest.mark.slow
def test_outputs_start_with_their_language_code_at_no_cost(nllb):
    _, _, trained = nllb
    (code,) = trained.vocabulary.target.prefix
    search = translator(trained)
    for best, *_ in search.hypotheses(["a green book", "the teacher reads"]):
        assert best.tokens[0] == code and best.token_scores[0] == 0 > best.score
        assert not {BOS, UNK} & {*best.tokens}
    text = ["a green book"]
    (((plain, *_),), ((prefixed, *_),), ((constrained, *_),)) = (
        search.hypotheses(text),
        search.hypotheses(text, prefixes=["ein "]),  # a complete word
        search.hypotheses(text, required=[["Buch"]]),
    )
    assert prefixed.text.startswith("ein") and not plain.text.startswith("ein")
    assert "Buch" in constrained.text and "Buch" not in plain.text
    target = trained.vocabulary.target
    ids = encode_phrase("the prefix", "ein", target)
    assert code not in ids and [*prefixed.tokens][: len(ids) + 1] == [code, *ids]


def test_the_forced_bos_counts_towards_the_length_limit(nllb):
    _, _, trained = nllb
    target = trained.vocabulary.target
    ids = encode_phrase("the phrase", "Buch", target)
    options = replace(translator(trained).options, max_length=len(ids) + 1)
    search = translator(trained).with_options(options)
    with pytest.raises(InputError, match=f"have {len(ids) + 1} tokens, but the length limit is"):
        search.hypotheses(["a green book"], required=[["Buch"]])


def test_training_from_it_inherits_the_forced_bos(nllb):
    folder, _, trained = nllb
    search = replace(SearchConfig(), beam_size=1)
    experiment = replace(trained.experiment, init_from=str(folder / "run"), search=search)
    forced_bos_id = trained.experiment.search.forced_bos_id
    assert forced_bos_id and inherit_model_config(experiment, None).search == replace(
        search, forced_bos_id=forced_bos_id
    )


def test_weights_may_be_sharded(mbart, tmp_path):
    folder = shutil.copytree(mbart, tmp_path / "sharded")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = {name: f"model-0000{1 + n % 2}.safetensors" for n, name in enumerate(tensors)}
    for file in set(names.values()):
        save_file({name: tensors[name] for name in names if names[name] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    assert_same_params(read_folder(mbart), read_folder(folder))
    (folder / "model-00002.safetensors").unlink()
    with pytest.raises(DataError, match="model-00002.safetensors is missing, which .*index.json"):
        read_folder(folder)
    index.write_text("{}")
    with pytest.raises(DataError, match="index.json: weight_map: it is missing"):
        read_folder(folder)


def test_ids_that_only_heed_has_are_masked(nllb):
    folder, library, trained = nllb
    imported = read_folder(folder)
    size = library.get_vocab_size() + 2
    assert trained.model.config.vocab_size == size + 1 == trained.vocabulary.source.vocab_size
    table = imported.params["embedding"]["table"]
    np.testing.assert_array_equal(table[BOS], table[EOS])
    assert (
        imported.params["output_bias"][BOS] == -100 and not imported.params["output_bias"][2:].any()
    )
    assert trained.vocabulary.source.pieces([size]) == [f"<{size - 1}>"]


def test_requested_languages_and_forced_ids(tmp_path):
    save_folder(tmp_path, "m2m_100")
    imported = read_folder(tmp_path, "deu_Latn", "eng_Latn")
    data, target = imported.experiment.data, imported.vocabulary.target
    assert (data.source_language, data.target_language) == ("deu_Latn", "eng_Latn")
    assert target.pieces([imported.experiment.search.forced_bos_id]) == ["eng_Latn"]
    save_folder(tmp_path, "bart", generation=dict(forced_bos_token_id=0, forced_eos_token_id=2))
    imported = read_folder(tmp_path)
    assert imported.vocabulary.shared and imported.vocabulary.source is imported.vocabulary.target
    search = imported.experiment.search
    assert imported.vocabulary.target.prefix == (search.forced_bos_id,) and search.max_length == 19
    change(tmp_path / "generation_config.json", forced_bos_token_id=None, forced_eos_token_id=None)
    search = read_folder(tmp_path).experiment.search
    assert (search.forced_bos_id, search.max_length, search.free_eos_at_limit) == (0, 20, True)


def test_a_model_may_lack_special_tokens_and_name_prefixes(tmp_path):
    library = save_folder(tmp_path, "bart")
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    mask = library.get_vocab_size() + 2  # the first id outside the model
    content["model"]["vocab"]["<mask>"] = mask
    content["added_tokens"].append(content["added_tokens"][-1] | {"id": mask, "content": "<mask>"})
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    before = read_folder(tmp_path)
    assert before.vocabulary.source.encode(["<mask>"])[0][-1] == UNK
    tensors = load_file(tmp_path / "model.safetensors")
    short = {name.removeprefix("model."): x for name, x in tensors.items()}
    save_file(short, tmp_path / "model.safetensors")
    assert_same_params(before, read_folder(tmp_path))


MISTAKES = {
    "a kind": ("config.json", dict(model_type="pegasus"), "model_type='pegasus' is not supported"),
    "post-norm": ("config.json", dict(normalize_before=False), "normalize_before=false is not"),
    "untied": ("config.json", dict(tie_word_embeddings=False), "tie_word_embeddings=false is not"),
    "layers": ("config.json", dict(encoder_layers=2), "lacks model.encoder.layers.1.self_attn"),
    "positions": (
        "config.json",
        dict(max_position_embeddings=80),
        r"embed_positions.weight has the shape \[72, 16\], not \[82, 16\] as in config.json",
    ),
    "words": (
        "config.json",
        dict(vocab_size=50),
        "has ids up to .* config.json says vocab_size=50",
    ),
    "start": (
        "generation_config.json",
        dict(decoder_start_token_id=0),
        "decoder_start_token_id=0 is not supported, only eos_token_id=2",
    ),
    "class": (
        "tokenizer_config.json",
        dict(tokenizer_class="MBartTokenizer"),
        'tokenizer_class="MBartTokenizer" is not supported, only "MBart50Tokenizer"',
    ),
    "mark": ("tokenizer_config.json", dict(pad_token="[PAD]"), r"pad_token='\[PAD\]' is not in"),
    "language": (
        "tokenizer_config.json",
        dict(src_lang="english"),
        "--source_language is .* has no 'english'; choices: deu_Latn, eng_Latn",
    ),
    "a word": (
        "tokenizer_config.json",
        dict(src_lang="e"),
        "--source_language is .* has no 'e'",  # a word that is not a language code
    ),
    "forced": (
        "generation_config.json",
        dict(forced_bos_token_id=120),
        "outputs start with 'eng_Latn': set --target_language=eng_Latn",
    ),
    "no class": ("tokenizer_config.json", dict(tokenizer_class=None), "has no tokenizer_class"),
    "text": ("config.json", dict(dropout="0.1"), "dropout: expected float, got str"),
    "words of text": (
        "generation_config.json",
        dict(max_length="20"),
        "max_length: expected int, got str",
    ),
    "a list": ("config.json", dict(model_type=[1]), "config.json: model_type: expected str"),
    "no language": (
        "tokenizer_config.json",
        dict(tgt_lang=None),
        "--target_language is the language code",
    ),
    "tokenizer": ("tokenizer.json", dict(model={}), "tokenizer.json: model.vocab: it is missing"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_an_invalid_setting_is_a_one_line_error(case, mbart):
    name, fields, message = MISTAKES[case]
    before = (mbart / name).read_text()
    change(mbart / name, **fields)
    try:
        with pytest.raises(DataError, match=message) as error:
            read_folder(mbart)
    finally:
        (mbart / name).write_text(before)
    assert "\n" not in str(error.value)


def test_a_missing_tokenizer_error_says_how_to_get_it(mbart, monkeypatch):
    content = (mbart / "tokenizer.json").read_bytes()
    (mbart / "tokenizer.json").unlink()
    with pytest.raises(DataError, match=r"tokenizer.json is missing: write it with transformers"):
        read_folder(mbart)
    (mbart / "tokenizer.json").write_bytes(content)
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    hf_tokenizer._library.cache_clear()
    with pytest.raises(DataError, match="tokenizer.json: .*: pip install tokenizers"):
        read_folder(mbart)
