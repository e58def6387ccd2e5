"""Exported models have the same outputs in transformers and CTranslate2."""

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
from interop import export_ctranslate2, export_hf_marian
from interop.hf_marian import read_marian
from model import Transformer, TransformerConfig
from model.sharding import make_mesh
from tests.decode.tiny_model import parameters
from tests.experiments.marian_folders import lines, save_vocabulary, table, train_spm, words
from tests.oracle import folders

pytestmark = pytest.mark.filterwarnings("ignore")  # from transformers


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """A Hugging Face folder, its model, and the imported run."""
    folder = tmp_path_factory.mktemp("huggingface")
    english, german = lines(100)
    models = train_spm(english, 70, "bpe"), train_spm(german, 70, "bpe")
    ids = table(words(*models))
    save_vocabulary(folder, *models, ids)
    generation = dict(early_stopping=True, bad_words_ids=[[len(ids) - 1], [1]])
    reference = folders.save_model(folder, len(ids), scale=0.5, eos_bias=1.2, generation=generation)
    result = read_marian(folder)
    model, mesh = Transformer(result.experiment.model), make_mesh()
    run = LoadedModel(result.experiment, result.vocabulary, model, result.params, mesh, (0,))
    return folder, reference, run


def generated(model, folder, text):
    tokenizer = MarianTokenizer.from_pretrained(folder)
    with torch.no_grad():
        ids = model.generate(**tokenizer(text, return_tensors="pt", padding=True))
    return tokenizer.batch_decode(ids, skip_special_tokens=True)


def test_an_imported_model_is_exported_unchanged(imported, tmp_path):
    """Same texts from the original, the imported and the exported model."""
    folder, reference, trained = imported
    export_hf_marian.write_marian(trained, tmp_path / "back", print)
    text = lines(40)[0]
    exported = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "back").eval()
    assert isinstance(exported, MarianMTModel)
    for name, tensor in reference.state_dict().items():
        if "positions" not in name:
            torch.testing.assert_close(exported.state_dict()[name], tensor, rtol=0, atol=0)
    expected = generated(reference, folder, text)
    assert generated(exported, tmp_path / "back", text) == expected
    options = SearchOptions(**vars(trained.experiment.search))
    translator = Translator(
        trained.model, trained.params, trained.vocabulary, trained.mesh, options
    )
    assert translator.translate(text) == expected and len(set(expected)) > 3


def test_an_exported_heed_model_has_equal_logits(tmp_path):
    english, german = lines(200)
    sentencepiece = Tokenizer.train(english + german, 360)
    config = TransformerConfig(
        vocab_size=360,
        encoder_layers=2,
        decoder_layers=2,
        d_model=32,
        d_ff=64,
        num_heads=4,
        norm_epsilon=1e-5,
    )
    params = parameters(config, 1.0)  # larger values would amplify rounding
    experiment = Experiment(model=config, search=SearchConfig(penalty="average", max_length=30))
    model, vocabulary = Transformer(config), Vocabulary(sentencepiece, sentencepiece)
    trained = LoadedModel(experiment, vocabulary, model, params, make_mesh(), (0,))
    export_hf_marian.write_marian(trained, tmp_path / "exported", print)
    reference = MarianMTModel.from_pretrained(tmp_path / "exported").eval()
    tokenizer = MarianTokenizer.from_pretrained(tmp_path / "exported")
    (src,), (tgt,) = sentencepiece.encode(english[:1]), sentencepiece.encode(german[:1])
    actual = model.apply(
        {"params": params}, *(jnp.asarray([row], jnp.int32) for row in ([*src, EOS], [BOS, *tgt]))
    )
    inputs = tokenizer(english[:1], text_target=german[:1], return_tensors="pt")
    with torch.no_grad():
        logits = reference(**inputs).logits[0, : len(tgt) + 1]
    # Marian: EOS, UNK, words, PAD; Heed: PAD, BOS, EOS, UNK, words.
    order = [EOS, EOS + 1, *range(EOS + 2, 360), BOS]
    np.testing.assert_allclose(actual[0][:, jnp.asarray(order)], logits, atol=1e-4, rtol=0)


def test_a_model_exported_to_ctranslate2_has_the_same_outputs(imported, tmp_path):
    """Outputs are the same, except for those that reach the length limit."""
    _, _, trained = imported
    export_ctranslate2.write_ctranslate2(trained, tmp_path / "out", print)
    reference = ctranslate2.Translator(str(tmp_path / "out"))
    # CTranslate2 excludes the padding logit: renormalize without it.
    search = replace(trained.experiment.search, free_eos_at_limit=False, renormalize=True)
    options = SearchOptions(**vars(search))
    model = trained.model, trained.params, trained.vocabulary
    n_best = Translator(*model, trained.mesh, options).hypotheses(text := lines(40)[0])
    pieces = trained.vocabulary.source.pieces
    sources = [[*pieces(row), "</s>"] for row in trained.vocabulary.source.encode(text)]
    results = reference.translate_batch(
        sources, beam_size=search.beam_size, max_decoding_length=search.max_length,
        disable_unk=True,
    )  # fmt: skip
    compared = 0
    for (best, *_), result in zip(n_best, results, strict=True):
        # At the limit CTranslate2 truncates and Heed ends with EOS.
        if len(result.hypotheses[0]) < search.max_length:
            assert pieces(best.tokens[:-1]) == result.hypotheses[0]
            compared += 1
    assert compared >= 25
