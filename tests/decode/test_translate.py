"""A model as a translator: the same answer whatever the batch, and a score that can be checked."""

import re
from dataclasses import replace
from functools import cache, partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batch import BOS, EOS, PAD, UNK, pad_rows, shift_right
from data.tokenizer import Tokenizer, Vocabulary
from decode.attention import attention_maps
from decode.batching import split_text
from decode.bleu import score
from decode.force import alignment, force, force_pairs
from decode.mbr import expected_utilities
from decode.options import InputError, SearchOptions
from decode.search import plain_step, search
from decode.translate import Translator
from decode.weights import pack
from model import Transformer, TransformerConfig, empty_cache
from model.sharding import make_mesh

WORDS = "the teacher reads a book and the student asks why it rains on a green monday".split()
CONFIG = TransformerConfig(
    encoder_layers=1, decoder_layers=2, d_model=16, d_ff=32, num_heads=2, vocab_size=300
)


@pytest.fixture(scope="module")
def vocabulary():
    rng = np.random.default_rng(0)
    text = [" ".join(rng.choice(WORDS, 8)) for _ in range(200)]
    tokenizer = Tokenizer.learn(text, 300)
    return Vocabulary(tokenizer, tokenizer)


def parameters(config, scale=4.0):
    """Random, and large enough that outputs differ and end."""
    shape = jnp.ones((1, 2), jnp.int32)
    params = nn.unbox(Transformer(config).init(jax.random.key(1), shape, shape))["params"]
    return jax.tree.map(lambda p: p * scale, params)


@pytest.fixture(scope="module")
def params():
    return parameters(CONFIG)


def sentences(count, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 12))) for _ in range(count)]


def translator(params, vocabulary, config=CONFIG, mesh=None, others=(), **options):
    batching = {n: options.pop(n) for n in ("tokens_per_batch", "max_input") if n in options}
    # One stage of the cache unless a test asks for more: a search compiles a loop for each.
    options = SearchOptions(**{"extra_length": 6, "max_length": 16} | options)
    model = Transformer(config)
    return Translator(model, params, vocabulary, mesh, options, others=others, **batching)


@pytest.mark.parametrize("options", [{"groups": 2}, {"method": "greedy"}])
def test_who_watches_sees_every_token_come(params, vocabulary, options):
    text, heard = [*sentences(5), ""], {}
    model = Transformer(CONFIG)
    watch = lambda number, text: heard.setdefault(number, []).append(text)  # noqa: E731
    options = SearchOptions(extra_length=6, **options)
    found = Translator(model, params, vocabulary, None, options, watch=watch).hypotheses(text)
    assert set(heard) == set(range(5))  # the empty line is not searched for
    for number, texts in heard.items():
        if options.method in ("greedy", "sample"):
            first = found[number][0]
            assert len(texts) == len(first.tokens) and texts[-1] == first.text
        assert len(texts) >= len(found[number][0].tokens) - 1 and len(set(texts)) > 1


def best(found):
    return [first for first, *_ in found]


def same(left, right):
    left, right = ([h for hs in side for h in hs] for side in (left, right))
    assert [h.text for h in left] == [h.text for h in right]
    assert [h.tokens for h in left] == [h.tokens for h in right]
    scores = [[h.score for h in side] for side in (left, right)]
    np.testing.assert_allclose(*scores, rtol=5e-5, atol=1e-4)


def test_the_batch_does_not_matter(params, vocabulary):
    text = sentences(12)
    together = translator(params, vocabulary).hypotheses(text)
    assert len({h.tokens for h in best(together)}) > 3  # or the test could not fail
    same(
        together,
        [translator(params, vocabulary).hypotheses([s])[0] for s in text[:3]] + together[3:],
    )
    same(together, translator(params, vocabulary, tokens_per_batch=64).hypotheses(text))
    order = np.random.default_rng(1).permutation(12)
    mixed = translator(params, vocabulary).hypotheses([text[i] for i in order] + sentences(5, 9))
    same([together[i] for i in order], mixed[:12])


def test_eight_devices_translate_as_one(params, vocabulary):
    text = sentences(10)
    one = translator(params, vocabulary).hypotheses(text)
    same(one, translator(params, vocabulary, mesh=make_mesh(8, 1, 1)).hypotheses(text))


def test_as_many_lines_out_as_in_and_in_order(params, vocabulary):
    text = ["", *sentences(3), "   ", *sentences(2, 5), ""]
    heard = []
    found = translator(params, vocabulary).translate(text, progress=heard.append)
    assert len(found) == len(text) and sum(heard) == len(text)
    assert found[0] == found[4] == found[-1] == ""
    assert found[1:4] == translator(params, vocabulary).translate(sentences(3))


@pytest.mark.parametrize("method", ["beam", "greedy"])
def test_the_score_is_that_of_teacher_forcing(params, vocabulary, method):
    text = sentences(4)
    src = vocabulary.source.encode(text)
    for ids, found in zip(
        src, best(translator(params, vocabulary, method=method).hypotheses(text)), strict=True
    ):
        assert found.tokens[-1] == EOS and EOS not in found.tokens[:-1]
        assert len(found.tokens) <= len(ids) + 6
        tgt = jnp.array([found.tokens], jnp.int32)
        logits = Transformer(CONFIG).apply(
            {"params": params}, jnp.array([[*ids, EOS]], jnp.int32), shift_right(tgt)
        )
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), tgt[..., None], -1)
        n = len(found.tokens)
        np.testing.assert_allclose(found.score, log_probs.sum() / ((5 + n) / 6) ** 0.6, atol=1e-4)


@pytest.fixture(scope="module")
def translators(params, vocabulary):
    @cache
    def make(method, devices, tokens):
        options = {"samples": 2} if method == "sample" else {}
        mesh = make_mesh(devices=jax.devices()[:devices])
        batching = dict(tokens_per_batch=tokens, method=method, max_length=0)
        return translator(params, vocabulary, mesh=mesh, **batching, **options)

    return make


@given(
    seed=st.integers(0, 99),
    count=st.sampled_from([3, 9]),
    method=st.sampled_from(["beam", "sample"]),
    around=st.sampled_from([(1, 16), (1, 512), (8, 512)]),  # devices, tokens a batch
    longer=st.booleans(),
)
@settings(max_examples=5, deadline=None, derandomize=True)
def test_nothing_around_a_sentence_changes_what_it_becomes(
    translators, seed, count, method, around, longer
):
    """Batch mates, batch size, bucket, padding, devices, and who finishes first."""
    text = sentences(count, seed)
    company = [" ".join(WORDS * 2)] if longer else []  # a wider bucket, and more steps
    found = translators(method, *around).hypotheses([*company, *text])
    same(found[-1:], translators(method, 1, 2048).hypotheses(text[-1:]))


def test_width_one_is_greedy(params, vocabulary):
    text = sentences(6)
    same(
        translator(params, vocabulary, beam_size=1).hypotheses(text),
        translator(params, vocabulary, method="greedy").hypotheses(text),
    )


def test_greedy_is_a_loop_over_the_whole_model(params):
    src = jnp.array([[5, 6, 7, EOS], [8, EOS, 0, 0]], jnp.int32)
    limits = jnp.array([7, 5], jnp.int32)
    nothing = jnp.zeros((2, 0), jnp.int32), jnp.zeros((2, 0, 0), jnp.int32)
    found = search(
        [CONFIG],
        [pack(CONFIG, params)],
        src,
        limits,
        *nothing,
        jax.random.split(jax.random.key(0), 2),
        options=SearchOptions(method="greedy"),
        max_length=8,
    )
    for b in range(2):
        output = [BOS]
        while output[-1] != EOS:
            args = src[b : b + 1], jnp.array([output], jnp.int32)
            logits = np.array(Transformer(CONFIG).apply({"params": params}, *args)[0, -1])
            logits[[0, BOS, UNK]] = -np.inf
            output.append(int(logits.argmax()) if len(output) < limits[b] else EOS)
        assert found.tokens[b, 0, : found.lengths[b, 0]].tolist() == output[1:]


def test_a_scanned_model_translates_like_its_unrolled_self(vocabulary):
    config = replace(CONFIG, scan_layers=True)
    stacked = parameters(config)
    layers = dict(stacked)
    for name, count in ("encoder", 1), ("decoder", 2):
        for i in range(count):
            layers[f"{name}_{i}"] = jax.tree.map(lambda p, i=i: p[i], stacked[name])
        del layers[name]
    text = sentences(3)
    same(
        translator(stacked, vocabulary, config).hypotheses(text),
        translator(layers, vocabulary).hypotheses(text),
    )


def test_long_inputs_are_split_or_refused_never_cut(params, vocabulary):
    long = ". ".join(" ".join(WORDS) for _ in range(5))
    split = translator(params, vocabulary, max_input="split:24")
    ((whole,),) = split.hypotheses([long])
    fits = lambda size: lambda t: len(vocabulary.source.encode([t])[0]) <= size  # noqa: E731
    parts = [part for _, part in split_text(long, fits(24))]
    assert len(parts) >= 5 and " ".join(parts).split() == long.split()
    assert whole.text == " ".join(split.translate(parts))
    with pytest.raises(InputError, match=r"line 2 has \d+ tokens"):
        translator(params, vocabulary, max_input="refuse:24").translate(["a book", long])
    ten_thousand = " ".join(["book"] * 10_000)
    pieces = [piece for _, piece in split_text(ten_thousand, fits(256))]
    assert sum(len(p.split()) for p in pieces) == 10_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "bem"}, "not one of: beam, greedy, sample, mbr"),
        ({"beam_size": 0}, "--beam_size=0"),
        ({"beam_size": 301}, "--beam_size=301"),
        ({"max_input": "cut:3"}, "--max_input=cut:3"),
    ],
)
def test_bad_options_are_named(params, vocabulary, options, message):
    with pytest.raises(InputError, match=message):
        translator(params, vocabulary, **options)


def test_attention_maps_are_distributions_of_the_right_shapes(params):
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


def test_bleu_and_chrf_carry_their_signatures():
    perfect = score(["Das ist ein kleines Haus."], ["Das ist ein kleines Haus."], "de")
    assert round(perfect["bleu"], 6) == round(perfect["chrf"], 6) == 100
    assert "tok:13a" in perfect["signature"] and "version:" in perfect["signature"]
    worse = score(["Das ist ein grosses Haus."], ["Das ist ein kleines Haus."], "de")
    assert 0 < worse["bleu"] < 100
    with pytest.raises(ValueError, match="1 hypotheses, but 2 references"):
        score(["a"], ["a", "b"])


@pytest.mark.parametrize(
    "options",
    [
        {"penalty": "average", "alpha": 1.0, "n_best": 2},
        {"coverage": 0.2},
        {"stopping": "bounded"},
        {"groups": 2, "n_best": 3},
        {"method": "sample", "samples": 3, "n_best": 3, "top_k": 20, "temperature": 0.7},
        {"method": "greedy", "no_repeat_ngrams": 1, "min_length": 4},
        {"repetition_penalty": 3.0, "max_length": 5},
        {"method": "mbr", "samples": 4, "min_p": 0.01, "top_p": 0.9},
    ],
    ids=lambda o: " ".join(o),
)
def test_every_method_scores_as_teacher_forcing_whatever_the_batch(vocabulary, options):
    text, params = sentences(4), parameters(CONFIG, scale=1.5)
    whole = translator(params, vocabulary, **options)
    found = whole.hypotheses(text)
    same(found, [translator(params, vocabulary, **options).hypotheses([s])[0] for s in text])
    assert {len(each) for each in found} == {options.get("n_best", 1)}
    forced = jax.jit(partial(force, Transformer(CONFIG)))
    for ids, each in zip(vocabulary.source.encode(text), found, strict=True):
        for h in each:
            src = jnp.asarray(pad_rows([[*ids, EOS]], 1, 80))
            tgt = jnp.asarray(pad_rows([h.tokens], 1, 80))
            scores = forced(params, src, tgt).token_scores[0, : len(h.tokens)]
            np.testing.assert_allclose(h.token_scores, scores, atol=1e-4)
            n, o = len(h.tokens), whole.options
            norm = n if o.penalty == "average" else ((5 + n) / 6) ** o.alpha
            if not o.coverage:
                np.testing.assert_allclose(h.score, scores.sum() / norm, atol=1e-4)
            assert o.min_length <= n <= o.limit(len(ids))
            if o.no_repeat_ngrams == 1:
                assert len(set(h.tokens)) == n


def test_an_ensemble_is_the_mean_of_probabilities(params, vocabulary):
    text = sentences(4)
    alone = translator(params, vocabulary).hypotheses(text)
    model = Transformer(CONFIG)
    same(alone, translator(params, vocabulary, others=[(model, params)]).hypotheses(text))
    small = replace(CONFIG, decoder_layers=1, d_ff=16)
    other = parameters(small)
    both = translator(params, vocabulary, others=[(Transformer(small), other)], method="greedy")
    for ids, (h, *_) in zip(vocabulary.source.encode(text), both.hypotheses(text), strict=True):
        src, tgt = (jnp.asarray([[*row]], jnp.int32) for row in ([*ids, EOS], h.tokens))
        each = [force(Transformer(c), p, src, tgt) for c, p in ((CONFIG, params), (small, other))]
        mean = np.mean([np.exp(f.token_scores[0]) for f in each], axis=0)
        np.testing.assert_allclose(h.token_scores, np.log(mean), atol=1e-4)


def test_outputs_begin_with_their_prefix(params, vocabulary):
    text, prefixes = sentences(3), ["a green", "", "why it rains"]
    found = best(translator(params, vocabulary).hypotheses(text, prefixes=prefixes))
    for h, prefix in zip(found, prefixes, strict=True):
        assert h.text.startswith(prefix)
    free = best(translator(params, vocabulary).hypotheses(text))
    assert found[1].tokens == free[1].tokens
    with pytest.raises(InputError, match="line 1: its prefix has"):
        translator(params, vocabulary, max_length=3).hypotheses(text, prefixes=["a green book"] * 3)


def test_outputs_hold_what_is_required(vocabulary):
    text, params = sentences(4), parameters(CONFIG, scale=1.5)
    wanted = [["a green monday"], [], ["why", "the teacher"], ["rains"]]
    some = translator(params, vocabulary, extra_length=20)
    found, free = (some.hypotheses(text, required=each) for each in (wanted, None))
    for h, phrases, other in zip(best(found), wanted, best(free), strict=True):
        assert all(phrase in h.text for phrase in phrases)
        assert all(phrase in other.text for phrase in phrases) == (not phrases)
    same(found[1:2], free[1:2])
    alone = some.hypotheses(text[2:3], required=wanted[2:3], prefixes=["a book"])[0][0]
    assert alone.text.startswith("a book") and all(phrase in alone.text for phrase in wanted[2])
    pairs = [h.parts[0] for h in best(found)]
    for number, forced in force_pairs(Transformer(CONFIG), params, pairs):
        h = best(found)[number]
        np.testing.assert_allclose(h.token_scores, forced.token_scores, atol=1e-4)
        normal = ((5 + len(h.tokens)) / 6) ** 0.6
        np.testing.assert_allclose(h.score, sum(h.token_scores) / normal, atol=1e-4)


@pytest.mark.parametrize("table", [20, 40])
def test_learned_positions_bound_source_and_output(vocabulary, table):
    config = replace(CONFIG, positions="learned", max_length=table)
    long = " ".join(["book"] * 60)
    found = translator(parameters(config), vocabulary, config).translate([long, "a book"])
    assert len(found) == 2


def test_ten_thousand_words_are_translated_in_pieces(params, vocabulary):
    heard = []
    greedy = translator(params, vocabulary, method="greedy", max_length=3)
    found = greedy.translate([" ".join(["book"] * 10_000), "a"], progress=heard.append)
    assert len(found) == 2 and sum(heard) == 2 and len(found[0].split(" ")) > 30


def test_training_in_bfloat16_ties_no_sentence_to_its_batch(params, vocabulary):
    text, config = sentences(6), replace(CONFIG, dtype="bfloat16")
    together = translator(params, vocabulary, config).hypotheses(text)
    same(together, [translator(params, vocabulary, config).hypotheses([s])[0] for s in text])


def test_a_few_sentences_make_a_small_batch(params, vocabulary):
    some = translator(params, vocabulary)
    some.translate(["a book"] * 3)
    assert some.shapes == {(3, 16, 0, 0, 0)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "greedy", "beam_size": 3}, "--beam_size=3 has no meaning with --method=greedy"),
        ({"temperature": 0.5}, "--temperature=0.5 has no meaning with --method=beam"),
        ({"groups": 3}, "--groups=3 must divide --beam_size=4"),
        ({"stopping": "never", "patience": 2.0}, "--patience is for --stopping=first"),
        ({"n_best": 5}, "--n_best=5 is more than there are, 4: raise --beam_size"),
        ({"min_length": 9, "max_length": 3}, "--min_length=9 is more than --max_length=3"),
        ({"penalty": "none", "alpha": 1.0}, "--alpha=1.0 has no meaning with --penalty=none"),
        ({"alpha": float("nan")}, "--alpha=nan is not a number"),
        ({"top_p": 0.0}, "--top_p=0.0 must be above 0"),
        ({"utility": "ter"}, "--utility=ter is not one of: chrf, bleu"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        SearchOptions(**options)


def test_alignment_and_utilities():
    attention = np.zeros((3, 2, 4))
    attention[1, 0, 2] = attention[1, 1, 0] = 1.0
    assert alignment(attention) == [(2, 0), (0, 1)]
    texts = ["the red cat", "the red cat", "a blue dog", "the red dog"]
    found = expected_utilities(texts)
    assert found.argmax() == 0 and found.argmin() == 2 and found[0] == found[1]
    assert expected_utilities(["alone"]).tolist() == [0.0]
    assert list(split_text("今天去学校。他明天来。", lambda t: len(t) < 8)) == [
        ("", "今天去学校。"),
        ("", "他明天来。"),
    ]


def test_what_stands_for_no_text_cannot_be_chosen(params):
    model, src = Transformer(CONFIG), jnp.array([[5, 6, EOS]], jnp.int32)
    apply = lambda *args, **how: model.apply({"params": params}, *args, **how)  # noqa: E731
    cross = apply(apply(src, method="encode"), method="cross_kv")
    step = plain_step(model, params, cross, src != PAD)
    found, _ = step(jnp.full((1, 2), BOS), empty_cache(CONFIG, (1, 2), 4), 0)
    found = found.logits - found.total[..., None]
    whole = jax.nn.log_softmax(apply(src, jnp.full((1, 1), BOS)))[0, 0]
    assert np.flatnonzero(np.isneginf(found[0, 0])).tolist() == [PAD, BOS, UNK]
    allowed = [i for i in range(300) if i not in (PAD, BOS, UNK)]
    np.testing.assert_allclose(
        found[0, 1, jnp.array(allowed)], whole[jnp.array(allowed)], atol=1e-4
    )
