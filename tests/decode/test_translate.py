"""Translation does not depend on the batch, the devices or the other sentences."""

import re
from contextlib import nullcontext
from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batch import EOS
from decode.batching import split_text
from decode.options import InputError, SearchOptions
from decode.search_batch import SearchBatch
from decode.teacher_forcing import score_pairs, teacher_force_pairs
from decode.translate import Translator
from model import Transformer
from model.sharding import make_mesh
from tests.decode.tiny_model import (
    CONFIG,
    WORDS,
    assert_same,
    best,
    parameters,
    sentences,
    translator,
)
from tests.xla_for_tests import default_optimizations

OTHER = replace(CONFIG, decoder_layers=1, d_ff=16)
SEARCHES = {
    "beam": {},
    "sample": dict(method="sample", num_samples=2, n_best=2, top_p=0.9, temperature=1.5),
    "coverage": dict(coverage=0.3, stopping="limit", no_repeat_ngrams=2),
    "groups": dict(num_groups=2, n_best=3, penalty="average", repetition_penalty=1.5),
    "greedy": dict(method="greedy"),
    "mbr": dict(method="mbr", num_samples=3, utility="bleu"),
    "ensemble": {},
    "constrained": dict(max_length_offset=20),  # with prefixes and required phrases
}

# Optimized programs, and those with two stages of the cache, take two to three times as long to
# compile. All searches share the model's arithmetic, which optimization might change.
TWO_STAGES = ("beam", "coverage")
OPTIMIZED = {"beam", "sample", "coverage", "ensemble"}


@pytest.fixture(scope="module")
def translators(vocabulary):
    params = parameters(CONFIG, scale=2.0)  # larger values would amplify rounding

    @cache
    def make(search, devices):
        options = SEARCHES[search] | dict(max_length=20 if search in TWO_STAGES else 16)
        if search == "ensemble":
            options |= dict(ensemble=[(Transformer(OTHER), parameters(OTHER, scale=2.0))])
        mesh = make_mesh(devices=jax.devices()[:devices])
        return translator(params, vocabulary, mesh=mesh, tokens_per_batch=512, **options)

    return make


def sentences_and_a_longer_one(vocabulary, count, seed=0):
    """`count` sentences of less than 32 tokens, shortest first, and one in a wider bucket."""
    encode = vocabulary.source.encode
    text = [s for s in sentences(2 * count + 9, seed) if len(encode([s])[0]) < 32][:count]
    assert len(text) == count
    return [*sorted(text, key=len), " ".join(WORDS)]


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_translation_does_not_depend_on_the_batch(params, vocabulary, translators):
    text = sentences_and_a_longer_one(vocabulary, 9)
    translate_all, few_rows = (translators("beam", 1).with_params(params) for _ in range(2))
    expected = translate_all.hypotheses(text)
    assert len({h.tokens for h in best(expected)}) > 3  # or the test could not fail
    few_rows.tokens_per_batch = 64
    assert_same(expected[5:9], few_rows.hypotheses(text[5:9]))  # two batches of two rows
    order = np.random.default_rng(1).permutation(10)
    shuffled = translate_all.hypotheses([text[i] for i in order] + sentences(1, 9))  # ten and one
    assert_same([expected[i] for i in order], shuffled[:10])


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_eight_devices_translate_like_one(params, vocabulary, translators):
    text = sentences_and_a_longer_one(vocabulary, 9)
    expected = translators("beam", 1).with_params(params).hypotheses(text)
    actual = translators("beam", 8).with_params(params).hypotheses(text[1:9])
    assert_same(expected[1:9], actual)


def test_data_parallel_search_has_no_collectives(params, vocabulary):
    sharded = translator(params, vocabulary, mesh=make_mesh(8, 1, 1))
    ids = np.full((8, 16), EOS, np.int32)
    numbers = np.ones(8, np.int32)
    constraints = np.zeros((8, 0), np.int32), np.zeros((8, 0, 0), np.int32)
    sentence_ids = np.zeros((8, 2), np.int32)
    batch = SearchBatch(ids, numbers, *constraints, numbers.astype(np.uint32), sentence_ids)
    program = sharded._search.lower(sharded.weights, batch, max_length=16).compile().as_text()
    assert "while" in program
    assert not re.search("all-(reduce|gather|to-all)|reduce-scatter|collective-permute", program)


@pytest.mark.slow
@pytest.mark.parametrize("search", SEARCHES)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1 << 20))
def test_every_method_is_independent_of_batch_and_devices(translators, vocabulary, search, seed):
    """Varies the batch, its size, bucket, padding, devices, and which sentence ends first.

    Compares one batch of ten rows with one row on each of eight devices.
    """
    text, constraints = sentences_and_a_longer_one(vocabulary, 8, seed), {}
    if search == "constrained":
        constraints["prefixes"] = ["the book"] * 3 + ["", "a"] * 3
        constraints["required"] = [["rains"]] * 3 + [[], ["a"]] * 2 + [["a book"]] * 2

    def translate_with(devices, end):
        batch_constraints = {name: values[:end] for name, values in constraints.items()}
        with default_optimizations() if search in OPTIMIZED else nullcontext():
            return translators(search, devices).hypotheses(text[:end], **batch_constraints)

    expected = translate_with(1, 9)
    assert_same(expected[:8], translate_with(8, 8))
    assert len({h.tokens for h in best(expected)}) > 3  # or the test could not fail


@pytest.mark.slow
@pytest.mark.usefixtures("optimized")
def test_a_bfloat16_model_does_not_depend_on_the_batch(params, vocabulary):
    text = sentences_and_a_longer_one(vocabulary, 9)[4:9]
    config = replace(CONFIG, dtype="bfloat16")
    translate_all = translator(params, vocabulary, config)
    expected = translate_all.hypotheses(text)
    assert_same(expected, [translate_all.hypotheses([s])[0] for s in text])


def test_few_sentences_make_a_small_batch(params, vocabulary):
    tiny = translator(params, vocabulary)
    tiny.translate(["a book"] * 3)
    assert {(*sizes[:5],) for sizes in tiny.shapes} == {(3, 16, 0, 0, 0)}


def test_output_lines_match_input_lines_in_order(params, vocabulary):
    text = ["", *sentences(3), "   ", *sentences(2, 5), ""]
    progress = []
    translations = translator(params, vocabulary).translate(text, progress=progress.append)
    assert len(translations) == len(text) and sum(progress) == len(text)
    assert translations[0] == translations[4] == translations[-1] == ""
    assert translations[1:4] == translator(params, vocabulary).translate(sentences(3))


@pytest.mark.slow
def test_a_scanned_model_translates_like_an_unrolled_one(vocabulary):
    config = replace(CONFIG, scan_layers=True)
    scanned = parameters(config)
    unrolled = dict(scanned)
    for name, count in ("encoder", 1), ("decoder", 2):
        for i in range(count):
            unrolled[f"{name}_{i}"] = jax.tree.map(lambda p, i=i: p[i], scanned[name])
        del unrolled[name]
    text = sentences(3)
    assert_same(
        translator(scanned, vocabulary, config).hypotheses(text),
        translator(unrolled, vocabulary).hypotheses(text),
    )


def test_long_inputs_are_split_or_rejected_but_never_truncated(params, vocabulary):
    long = ". ".join(" ".join(WORDS) for _ in range(5))
    split = translator(params, vocabulary, long_input="split:24")
    ((hypothesis,),) = split.hypotheses([long])
    fits = lambda size: lambda t: len(vocabulary.source.encode([t])[0]) <= size  # noqa: E731
    parts = [part for _, part in split_text(long, fits(24))]
    assert len(parts) >= 5 and " ".join(parts).split() == long.split()
    assert hypothesis.text == " ".join(split.translate(parts))
    with pytest.raises(InputError, match=r"line 2 has \d+ tokens"):
        translator(params, vocabulary, long_input="error:24").translate(["a book", long])
    ten_thousand = " ".join(["book"] * 10_000)
    pieces = [piece for _, piece in split_text(ten_thousand, fits(256))]
    assert sum(len(p.split()) for p in pieces) == 10_000


def test_ten_thousand_words_are_translated_in_segments(params, vocabulary):
    progress = []
    greedy = translator(params, vocabulary, method="greedy", max_length=3)
    translations = greedy.translate([" ".join(["book"] * 10_000), "a"], progress=progress.append)
    assert len(translations) == 2 and len(translations[0].split(" ")) > 30
    assert abs(sum(progress) - 2) < 1e-6
    assert (
        len(progress) > 4 and max(progress) < 1.1
    )  # progress of a long line is reported per segment


@pytest.mark.slow
@pytest.mark.parametrize("table", [20, 40])
def test_learned_positions_limit_source_and_output(vocabulary, table):
    config = replace(CONFIG, positions="learned", max_length=table)
    long = " ".join(["book"] * 60)
    translations = translator(parameters(config), vocabulary, config).translate([long, "a book"])
    assert len(translations) == 2
    full = [*range(5, table + 4), EOS]
    ((_, forced),) = teacher_force_pairs(Transformer(config), parameters(config), [(full, full)])
    assert np.isfinite(forced.token_scores).all() and forced.attention.shape == (table, table)
    message = f"--source, line 2 has 241 .* more than the model's {table} positions"
    with pytest.raises(InputError, match=message):
        score_pairs(Transformer(config), parameters(config), vocabulary, ["a", long], ["a", "a"])


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"num_groups": 2}, {"method": "greedy"}])
def test_streaming_reports_every_token(params, vocabulary, options):
    text, streamed, final = [*sentences(5), ""], {}, {}
    model = Transformer(CONFIG)

    def on_token(index, piece, text, done):
        assert index not in final  # no callback after the last
        if done:
            final[index] = text
        else:
            streamed.setdefault(index, []).append(text)

    options = SearchOptions(max_length_offset=6, **options)
    n_best = Translator(model, params, vocabulary, None, options, on_token=on_token).hypotheses(
        text
    )
    assert set(streamed) == set(range(5))  # the empty line is not searched
    assert final == {index: n_best[index][0].text for index in range(5)}
    for index, texts in streamed.items():
        if options.method in ("greedy", "sample"):
            best_hypothesis = n_best[index][0]
            assert len(texts) == len(best_hypothesis.tokens) and texts[-1] == best_hypothesis.text
        assert len(texts) >= len(n_best[index][0].tokens) - 1 and len(set(texts)) > 1
