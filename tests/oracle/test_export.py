"""Exported models give their outputs in transformers and in CTranslate2."""

from dataclasses import replace

import ctranslate2
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, MarianMTModel, MarianTokenizer

from data.batch import BOS, EOS
from data.tokenizer import Tokenizer
from data.vocabulary import Vocabulary
from decode.options import SearchOptions
from decode.translate import Translator
from experiments.config import Experiment, SearchConfig
from experiments.workdir import LoadedModel
from interop import export_ctranslate2 as converted
from interop import export_hf_marian
from interop.hf_marian import read_marian
from model import Transformer, TransformerConfig
from model.sharding import make_mesh
from tests.decode.tiny_model import parameters
from tests.experiments.marian_folders import learn, lines, save_vocabulary, table, words
from tests.oracle import folders

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers' own


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """Their folder, their model, and the run that it is imported as."""
    folder = tmp_path_factory.mktemp("theirs")
    english, german = lines(100)
    models = learn(english, 70, "bpe"), learn(german, 70, "bpe")
    ids = table(words(*models))
    save_vocabulary(folder, *models, ids)
    searched = dict(early_stopping=True, bad_words_ids=[[len(ids) - 1], [1]])
    theirs = folders.save_model(folder, len(ids), scale=0.5, late=1.2, generation=searched)
    found = read_marian(folder)
    model = Transformer(found.experiment.model)
    return folder, theirs, LoadedModel(found.experiment, found.vocabulary, model, found.params,
                                   make_mesh(), (0,))  # fmt: skip


def generated(model, folder, text):
    tokenizer = MarianTokenizer.from_pretrained(folder)
    with torch.no_grad():
        ids = model.generate(**tokenizer(text, return_tensors="pt", padding=True))
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


def test_an_imported_model_goes_back_as_it_came(imported, tmp_path):
    """The same texts in all three: theirs, ours, and theirs of ours."""
    folder, theirs, trained = imported
    export_hf_marian.write_marian(trained, tmp_path / "back", print)
    text = lines(40)[0]
    back = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "back").eval()
    assert isinstance(back, MarianMTModel)
    for name, tensor in theirs.state_dict().items():
        if "positions" not in name:
            torch.testing.assert_close(back.state_dict()[name], tensor, rtol=0, atol=0)
    expected = generated(theirs, folder, text)
    assert generated(back, tmp_path / "back", text) == expected
    options = SearchOptions(**vars(trained.experiment.search))
    translator = Translator(
        trained.model, trained.params, trained.vocabulary, trained.mesh, options
    )
    assert translator.translate(text) == expected and len(set(expected)) > 3


def test_an_exported_model_of_ours_has_equal_logits(tmp_path):
    english, german = lines(200)
    both = Tokenizer.train(english + german, 360)
    config = TransformerConfig(
        vocab_size=360,
        encoder_layers=2,
        decoder_layers=2,
        d_model=32,
        d_ff=64,
        num_heads=4,
        norm_epsilon=1e-5,
    )
    params = parameters(config, 1.0)  # larger ones would make more of each rounding
    experiment = Experiment(model=config, search=SearchConfig(penalty="average", max_length=30))
    model, vocabulary = Transformer(config), Vocabulary(both, both)
    trained = LoadedModel(experiment, vocabulary, model, params, make_mesh(), (0,))
    export_hf_marian.write_marian(trained, tmp_path / "there", print)
    theirs = MarianMTModel.from_pretrained(tmp_path / "there").eval()
    tokenizer = MarianTokenizer.from_pretrained(tmp_path / "there")
    (src,), (tgt,) = both.encode(english[:1]), both.encode(german[:1])
    ours = model.apply(
        {"params": params}, *(jnp.asarray([row], jnp.int32) for row in ([*src, EOS], [BOS, *tgt]))
    )
    inputs = tokenizer(english[:1], text_target=german[:1], return_tensors="pt")
    with torch.no_grad():
        logits = theirs(**inputs).logits[0, : len(tgt) + 1]
    # Theirs: end, unknown word, all others, padding; ours: padding, start, end, unknown word.
    order = [EOS, EOS + 1, *range(EOS + 2, 360), BOS]
    np.testing.assert_allclose(ours[0][:, jnp.asarray(order)], logits, atol=1e-4, rtol=0)


def test_ctranslate2s_own_converter_takes_it(imported, tmp_path):
    """Whose outputs are the same, but for those that reach the length limit."""
    _, _, trained = imported
    converted.write_ctranslate2(trained, tmp_path / "out", print)
    theirs = ctranslate2.Translator(str(tmp_path / "out"))
    # Padding, whose logit is left out there, counts for nothing here either.
    search = replace(trained.experiment.search, free_eos_at_limit=False, renormalize=True)
    options = SearchOptions(**vars(search))
    model = trained.model, trained.params, trained.vocabulary
    found = Translator(*model, trained.mesh, options).hypotheses(text := lines(40)[0])
    pieces = trained.vocabulary.source.pieces
    sources = [[*pieces(row), "</s>"] for row in trained.vocabulary.source.encode(text)]
    results = theirs.translate_batch(
        sources, beam_size=search.beam_size, max_decoding_length=search.max_length,
        disable_unk=True,
    )  # fmt: skip
    compared = 0
    for (best, *_), result in zip(found, results, strict=True):
        if len(result.hypotheses[0]) < search.max_length:  # it cuts those, ours end there
            assert pieces(best.tokens[:-1]) == result.hypotheses[0]
            compared += 1
    assert compared >= 25
