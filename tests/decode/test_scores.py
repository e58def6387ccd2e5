"""Scores of hypotheses compared with teacher forcing; attention, alignment, BLEU and chrF."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.batch import BOS, EOS, pad_rows, shift_right
from decode.attention_maps import attention_maps
from decode.batching import split_text
from decode.bleu import corpus_scores, sacrebleu_tokenizer
from decode.mbr import expected_utilities
from decode.options import InputError, SearchOptions
from decode.shortlist import Shortlist
from decode.teacher_forcing import alignment, perplexity, teacher_force, teacher_force_pairs
from decode.translate import Translator
from model import Transformer
from tests.decode.tiny_model import CONFIG, assert_same, best, parameters, sentences, translator


@pytest.mark.parametrize("method", ["beam", "greedy"])
def test_a_hypothesis_score_equals_teacher_forcing(params, vocabulary, method):
    text = sentences(4)
    apply = jax.jit(Transformer(CONFIG).apply)
    hypotheses = best(translator(params, vocabulary, method=method).hypotheses(text))
    for ids, hypothesis in zip(vocabulary.source.encode(text), hypotheses, strict=True):
        assert hypothesis.tokens[-1] == EOS and EOS not in hypothesis.tokens[:-1]
        assert len(hypothesis.tokens) <= len(ids) + 6
        n = len(hypothesis.tokens)
        src, tgt = pad_rows([[*ids, EOS]], 1, 40), pad_rows([hypothesis.tokens], 1, 20)
        logits = apply({"params": params}, src, shift_right(jnp.asarray(tgt)))
        log_probs = np.asarray(jax.nn.log_softmax(logits))[0, np.arange(n), tgt[0, :n]]
        np.testing.assert_allclose(
            hypothesis.score, log_probs.sum() / ((5 + n) / 6) ** 0.6, atol=1e-4
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"penalty": "average", "alpha": 1.0, "n_best": 2},
        {"coverage": 0.2, "n_best": 4},
        {"stopping": "unbeatable", "banned": ((70,), (245, 245))},
        {"stopping": "limit", "alpha": 2.0},
        {"num_groups": 2, "n_best": 3},
        {"method": "sample", "num_samples": 3, "n_best": 3, "top_k": 20, "temperature": 0.7},
        {"method": "greedy", "no_repeat_ngrams": 1, "min_length": 4},
        {"repetition_penalty": 3.0, "max_length": 5, "patience": 2.0},
        {"method": "mbr", "num_samples": 4, "min_p": 0.01, "top_p": 0.9},
    ],
    ids=lambda o: " ".join(o),
)
def test_every_method_scores_like_teacher_forcing_in_any_batch(vocabulary, options):
    text, params = sentences(4), parameters(CONFIG, scale=1.5)
    translate = translator(params, vocabulary, **options)
    n_best = translate.hypotheses(text)
    # The shortest sentence alone would be in another bucket, with a program of its own.
    alone = [row for row in range(4) if len(text[row].split()) > 1]
    assert_same(
        [n_best[row] for row in alone], [translate.hypotheses([text[row]])[0] for row in alone]
    )
    assert len(translate.shapes) == 2
    assert {len(hypotheses) for hypotheses in n_best} == {options.get("n_best", 1)}
    forced, penalties = jax.jit(partial(teacher_force, Transformer(CONFIG))), []
    for ids, hypotheses in zip(vocabulary.source.encode(text), n_best, strict=True):
        for h in hypotheses:
            src = jnp.asarray(pad_rows([[*ids, EOS]], 1, 80))
            tgt = jnp.asarray(pad_rows([h.tokens], 1, 80))
            output = forced(params, src, tgt)
            scores = output.token_scores[0, : len(h.tokens)]
            np.testing.assert_allclose(h.token_scores, scores, atol=1e-4)
            n, o = len(h.tokens), translate.options
            norm = n if o.penalty == "average" else ((5 + n) / 6) ** o.alpha
            attention_mass = output.attention[0, :, : len(h.tokens), : len(ids) + 1].mean(0).sum(0)
            coverage = o.coverage * np.log(np.minimum(attention_mass, 1)).sum()
            np.testing.assert_allclose(h.score, scores.sum() / norm + coverage, atol=1e-4)
            penalties.append(coverage)
            assert o.min_length <= n <= o.limit(len(ids))
            if o.no_repeat_ngrams == 1:
                assert len(set(h.tokens)) == n
    assert (min(penalties) < -0.1) == (translate.options.coverage > 0)


@pytest.mark.slow
def test_an_ensemble_averages_probabilities(params, vocabulary):
    text = sentences(4)
    single = translator(params, vocabulary).hypotheses(text)
    model = Transformer(CONFIG)
    assert_same(single, translator(params, vocabulary, ensemble=[(model, params)]).hypotheses(text))
    small_config = replace(CONFIG, decoder_layers=1, d_ff=16)
    small_params = parameters(small_config)
    ensemble = translator(params, vocabulary, ensemble=[(Transformer(small_config), small_params)])
    models = [
        (jax.jit(partial(teacher_force, Transformer(c))), p)
        for c, p in ((CONFIG, params), (small_config, small_params))
    ]
    for ids, (h, *_) in zip(vocabulary.source.encode(text), ensemble.hypotheses(text), strict=True):
        n = len(h.tokens)
        src, tgt = (jnp.asarray(pad_rows([row], 1, 40)) for row in ([*ids, EOS], h.tokens))
        scores = [forced(p, src, tgt).token_scores[0, :n] for forced, p in models]
        mean = np.mean(np.exp(scores), axis=0)
        np.testing.assert_allclose(h.token_scores, np.log(mean), atol=1e-4)
        length_norm = ((5 + n) / 6) ** 0.6
        np.testing.assert_allclose(h.score, np.log(mean).sum() / length_norm, atol=1e-4)


def test_outputs_start_with_their_prefix(params, vocabulary):
    text, prefixes = sentences(3), ["a green", "", "why it rains"]
    hypotheses = best(translator(params, vocabulary).hypotheses(text, prefixes=prefixes))
    for h, prefix in zip(hypotheses, prefixes, strict=True):
        assert h.text.startswith(prefix)
    free = best(translator(params, vocabulary).hypotheses(text))
    assert hypotheses[1].tokens == free[1].tokens
    with pytest.raises(InputError, match="line 1: its prefix has"):
        translator(params, vocabulary, max_length=3).hypotheses(text, prefixes=["a green book"] * 3)


@pytest.mark.parametrize(
    "options",
    [dict(n_best=3), dict(method="sample", num_samples=3, n_best=3, top_k=2)],
    ids=lambda o: " ".join(o),
)
def test_a_prefix_may_end_within_a_word(vocabulary, options):
    text, prefixes = ["a book"] * 4, ["the teach", "", "b", "why it "]
    params = parameters(CONFIG, scale=1.5)
    completing = translator(params, vocabulary, **options, max_length_offset=12, max_length=16)
    n_best = completing.hypotheses(text, prefixes=prefixes)
    for hypotheses, prefix in zip(n_best, prefixes, strict=True):
        for h in hypotheses:  # a trailing space is followed by a word or by EOS
            assert h.text.startswith(prefix) or h.text == prefix.strip()
    all_hypotheses = [h for hypotheses in n_best for h in hypotheses]
    for index, forced in teacher_force_pairs(
        Transformer(CONFIG), params, [h.parts[0] for h in all_hypotheses]
    ):
        np.testing.assert_allclose(
            all_hypotheses[index].token_scores, forced.token_scores, atol=1e-4
        )
    own_encoding = vocabulary.target.encode(["b"])[0]
    assert any(list(h.tokens[: len(own_encoding)]) != own_encoding for h in n_best[2])


def test_an_ensemble_with_a_shortlist_completes_words(params, vocabulary):
    prefixes, size = ["the teach", "gre"], CONFIG.vocab_size
    empty_shortlist = Shortlist(
        np.zeros(size + 1, np.int64), np.zeros(0, np.int32), np.arange(0), size
    )
    others = [(Transformer(CONFIG), parameters(CONFIG, 2.0))]
    options = SearchOptions(max_length_offset=12, max_length=16)
    ensemble = Translator(Transformer(CONFIG), params, vocabulary, None, options, ensemble=others,
                          shortlist=empty_shortlist)  # fmt: skip
    hypotheses = best(ensemble.hypotheses(["a book"] * 2, None, prefixes))
    for h, prefix in zip(hypotheses, prefixes, strict=True):
        assert h.text.startswith(prefix)
        # Only tokens of the prefix are allowed.
        assert set(h.tokens) <= {EOS, *vocabulary.target.encode([prefix])[0]}


@pytest.mark.slow
def test_outputs_contain_the_required_phrases(vocabulary):
    text, params = sentences(4), parameters(CONFIG, scale=1.5)
    required = [["a green monday"], [], ["why", "the teacher"], ["rains"]]
    constrained = translator(params, vocabulary, max_length_offset=20)
    n_best, free = (constrained.hypotheses(text, required=r) for r in (required, None))
    for h, phrases, unconstrained in zip(best(n_best), required, best(free), strict=True):
        assert all(phrase in h.text for phrase in phrases)
        assert all(phrase in unconstrained.text for phrase in phrases) == (not phrases)
    assert_same(n_best[1:2], free[1:2])
    prefixed = constrained.hypotheses(text[2:3], required=required[2:3], prefixes=["a book"])[0][0]
    assert prefixed.text.startswith("a book")
    assert all(phrase in prefixed.text for phrase in required[2])
    all_hypotheses = [*best(n_best), prefixed]
    for index, forced in teacher_force_pairs(
        Transformer(CONFIG), params, [h.parts[0] for h in all_hypotheses]
    ):
        h = all_hypotheses[index]
        assert forced.attention.shape == (len(h.tokens), len(h.parts[0][0]))
        np.testing.assert_allclose(h.token_scores, forced.token_scores, atol=1e-4)
        length_norm = ((5 + len(h.tokens)) / 6) ** 0.6
        np.testing.assert_allclose(h.score, sum(h.token_scores) / length_norm, atol=1e-4)


def test_alignment_and_utilities():
    attention = np.zeros((2, 4))
    attention[0, 2] = attention[1, 0] = 1.0
    assert alignment(attention) == [(2, 0), (0, 1)]
    texts = ["the red cat", "the red cat", "a blue dog", "the red dog"]
    utilities = expected_utilities(texts)
    assert utilities.argmax() == 0 and utilities.argmin() == 2 and utilities[0] == utilities[1]
    assert expected_utilities(["alone"]).tolist() == [0.0]
    # Languages without spaces are tokenized accordingly.
    candidates, utility = ["猫在睡觉", "猫在吃鱼", "我们去学校"], "bleu"
    assert expected_utilities(candidates, utility).tolist() == [0.0] * 3
    assert expected_utilities(candidates, utility, "zh").argmin() == 2
    assert list(split_text("今天去学校。他明天来。", lambda t: len(t) < 8)) == [
        ("", "今天去学校。"),
        ("", "他明天来。"),
    ]


def test_attention_maps_are_distributions_with_the_right_shapes(params):
    src, tgt = jnp.array([[5, 6, 7, EOS]], jnp.int32), jnp.array([[BOS, 9, 8]], jnp.int32)
    maps = attention_maps(Transformer(CONFIG), params, src, tgt)
    assert {k: v.shape for k, v in maps.items()} == {
        "encoder": (1, 2, 4, 4),
        "decoder": (2, 2, 3, 3),
        "cross": (2, 2, 3, 4),
    }
    for weights in maps.values():
        np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert not np.triu(maps["decoder"], 1).any()
    config = replace(CONFIG, decoder_mixer="ssru")
    recurrent = attention_maps(Transformer(config), parameters(config), src, tgt)
    assert recurrent.keys() == {"encoder", "cross"}


def test_bleu_and_chrf_have_signatures():
    perfect = corpus_scores(["Das ist ein kleines Haus."], ["Das ist ein kleines Haus."], "de")
    assert round(perfect["bleu"], 6) == round(perfect["chrf"], 6) == 100
    assert "tok:13a" in perfect["signature"] and "version:" in perfect["signature"]
    worse = corpus_scores(["Das ist ein grosses Haus."], ["Das ist ein kleines Haus."], "de")
    assert 0 < worse["bleu"] < 100
    with pytest.raises(ValueError, match="1 hypotheses, but 2 references"):
        corpus_scores(["a"], ["a", "b"])


@pytest.mark.parametrize(
    ("code", "name"),
    [
        *(("de", "13a"), ("deu_Latn", "13a"), ("", "13a"), ("zh", "zh"), ("zho_Hans", "zh")),
        *(("zh-TW", "zh"), ("ja", "char"), ("ja_XX", "char"), ("kor_Hang", "char")),
        *(("cmn", "zh"), ("yue_Hant", "zh"), ("th", "char"), ("tha_Thai", "char"), ("lo", "char")),
        *(("khm_Khmr", "char"), ("my_MM", "char"), ("mya", "char"), ("bo", "char")),
        *(("jpn_Latn", "13a"), ("ko-Latn", "13a"), ("vi", "13a"), ("ar_AR", "13a")),
        *(("target", "13a"), ("xx", "13a")),  # names of text columns are arbitrary
    ],
)
def test_the_bleu_tokenizer_accepts_all_forms_of_a_language_code(code, name):
    assert sacrebleu_tokenizer(code) == name


def test_the_perplexity_of_any_scores_is_a_number():
    np.testing.assert_allclose(perplexity([-1.0, -3.0]), np.exp(2.0))
    assert perplexity([-800.0, -800.0]) == perplexity([-np.inf]) == np.inf
    assert np.isnan(perplexity([np.nan, -1.0]))
