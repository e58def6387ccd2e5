"""Sentences in, sentences out: the same whatever the batch, the devices and the company."""

import re
from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.batch import EOS
from decode.batching import split_text
from decode.inputs import SearchBatch
from decode.options import InputError, SearchOptions
from decode.teacher_forcing import score_pairs, teacher_force_pairs
from decode.translate import Translator
from model import Transformer
from model.sharding import make_mesh
from tests.decode.tiny_model import CONFIG, WORDS, best, parameters, same, sentences, translator


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_the_batch_does_not_matter(params, vocabulary):
    text, some = sentences(12), translator(params, vocabulary)
    together = some.hypotheses(text)
    assert len({h.tokens for h in best(together)}) > 3  # or the test could not fail
    same(together, [some.hypotheses([s])[0] for s in text[:3]] + together[3:])
    same(together, translator(params, vocabulary, tokens_per_batch=64).hypotheses(text))
    order = np.random.default_rng(1).permutation(12)
    mixed = some.hypotheses([text[i] for i in order] + sentences(5, 9))
    same([together[i] for i in order], mixed[:12])


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_eight_devices_translate_as_one(params, vocabulary):
    text = sentences(10)
    one = translator(params, vocabulary).hypotheses(text)
    same(one, translator(params, vocabulary, mesh=make_mesh(8, 1, 1)).hypotheses(text))


def test_no_device_waits_for_another_while_it_searches(params, vocabulary):
    eight = translator(params, vocabulary, mesh=make_mesh(8, 1, 1))
    ids = np.full((8, 16), EOS, np.int32)
    numbers = np.ones(8, np.int32)
    nothing = np.zeros((8, 0), np.int32), np.zeros((8, 0, 0), np.int32)
    sentence_ids = np.zeros((8, 2), np.int32)
    asked = SearchBatch(ids, numbers, *nothing, numbers.astype(np.uint32), sentence_ids)
    program = eight._search.lower(eight.weights, asked, max_length=16).compile().as_text()
    assert "while" in program
    assert not re.search("all-(reduce|gather|to-all)|reduce-scatter|collective-permute", program)


OTHER = replace(CONFIG, decoder_layers=1, d_ff=16)
SEARCHES = {
    "beam": {},
    "sample": dict(method="sample", num_samples=2, n_best=2, top_p=0.9, temperature=1.5),
    "coverage": dict(coverage=0.3, stopping="limit", no_repeat_ngrams=2),
    "groups": dict(num_groups=2, n_best=3, penalty="average", repetition_penalty=1.5),
    "greedy": dict(method="greedy"),
    "mbr": dict(method="mbr", num_samples=3, utility="bleu"),
    "ensemble": {},
    "asked": dict(max_length_offset=20),  # with prefixes and required phrases
}


@pytest.fixture(scope="module")
def translators(vocabulary):
    params = parameters(CONFIG, scale=2.0)  # larger ones make much of a rounding

    @cache
    def make(search, devices):
        options = SEARCHES[search] | dict(max_length=20)  # two stages of the cache
        if search == "ensemble":
            options |= dict(others=[(Transformer(OTHER), parameters(OTHER, scale=2.0))])
        mesh = make_mesh(devices=jax.devices()[:devices])
        return translator(params, vocabulary, mesh=mesh, tokens_per_batch=512, **options)

    return make


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
@pytest.mark.parametrize("search", SEARCHES)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1 << 20))
def test_nothing_around_a_sentence_changes_what_it_becomes(translators, search, seed):
    """Batch mates, batch size, bucket, padding, devices, and who finishes first."""
    text = sorted(sentences(9, seed), key=len)
    text.append(" ".join(WORDS))  # a wider bucket, and more steps
    asked = {}
    if search == "asked":
        asked["prefixes"] = ["the book"] * 3 + ["", "a"] * 3 + [""]
        asked["required"] = [["rains"]] * 3 + [[], ["a"]] * 3 + [["a book"]]

    def around(devices, rows):
        some, found = translators(search, devices), []
        for at in range(0, len(text), rows):
            own = {name: values[at : at + rows] for name, values in asked.items()}
            found += some.hypotheses(text[at : at + rows], **own)
            if rows == 1 and len(found) == 3:
                break  # longer ones would have it compiled anew
        return found

    together = around(1, 10)
    same(together, around(8, 10))
    same(together[:3], around(1, 1))
    assert len({h.tokens for h in best(together)}) > 3  # or the test could not fail


@pytest.mark.slow
@pytest.mark.usefixtures("optimised")
def test_training_in_bfloat16_ties_no_sentence_to_its_batch(params, vocabulary):
    text, config = sentences(6), replace(CONFIG, dtype="bfloat16")
    some = translator(params, vocabulary, config)
    together = some.hypotheses(text)
    same(together, [some.hypotheses([s])[0] for s in text])


def test_a_few_sentences_make_a_small_batch(params, vocabulary):
    some = translator(params, vocabulary)
    some.translate(["a book"] * 3)
    assert {(*sizes[:5],) for sizes in some.shapes} == {(3, 16, 0, 0, 0)}


def test_as_many_lines_out_as_in_and_in_order(params, vocabulary):
    text = ["", *sentences(3), "   ", *sentences(2, 5), ""]
    heard = []
    found = translator(params, vocabulary).translate(text, progress=heard.append)
    assert len(found) == len(text) and sum(heard) == len(text)
    assert found[0] == found[4] == found[-1] == ""
    assert found[1:4] == translator(params, vocabulary).translate(sentences(3))


@pytest.mark.slow
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
    split = translator(params, vocabulary, long_input="split:24")
    ((whole,),) = split.hypotheses([long])
    fits = lambda size: lambda t: len(vocabulary.source.encode([t])[0]) <= size  # noqa: E731
    parts = [part for _, part in split_text(long, fits(24))]
    assert len(parts) >= 5 and " ".join(parts).split() == long.split()
    assert whole.text == " ".join(split.translate(parts))
    with pytest.raises(InputError, match=r"line 2 has \d+ tokens"):
        translator(params, vocabulary, long_input="error:24").translate(["a book", long])
    ten_thousand = " ".join(["book"] * 10_000)
    pieces = [piece for _, piece in split_text(ten_thousand, fits(256))]
    assert sum(len(p.split()) for p in pieces) == 10_000


def test_ten_thousand_words_are_translated_in_pieces(params, vocabulary):
    heard = []
    greedy = translator(params, vocabulary, method="greedy", max_length=3)
    found = greedy.translate([" ".join(["book"] * 10_000), "a"], progress=heard.append)
    assert len(found) == 2 and len(found[0].split(" ")) > 30
    assert abs(sum(heard) - 2) < 1e-6
    assert len(heard) > 4 and max(heard) < 1.1  # a long line is done part by part


@pytest.mark.slow
@pytest.mark.parametrize("table", [20, 40])
def test_learned_positions_bound_source_and_output(vocabulary, table):
    config = replace(CONFIG, positions="learned", max_length=table)
    long = " ".join(["book"] * 60)
    found = translator(parameters(config), vocabulary, config).translate([long, "a book"])
    assert len(found) == 2
    full = [*range(5, table + 4), EOS]
    ((_, forced),) = teacher_force_pairs(Transformer(config), parameters(config), [(full, full)])
    assert np.isfinite(forced.token_scores).all() and forced.attention.shape == (table, table)
    with pytest.raises(InputError, match=f"--source, line 2 has 241 .* more than the {table} that"):
        score_pairs(Transformer(config), parameters(config), vocabulary, ["a", long], ["a", "a"])


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"num_groups": 2}, {"method": "greedy"}])
def test_who_watches_sees_every_token_come(params, vocabulary, options):
    text, heard, chosen = [*sentences(5), ""], {}, {}
    model = Transformer(CONFIG)

    def on_token(number, piece, text, done):
        assert number not in chosen  # nothing comes after the last
        if done:
            chosen[number] = text
        else:
            heard.setdefault(number, []).append(text)

    options = SearchOptions(max_length_offset=6, **options)
    found = Translator(model, params, vocabulary, None, options, on_token=on_token).hypotheses(text)
    assert set(heard) == set(range(5))  # the empty line is not searched for
    assert chosen == {number: found[number][0].text for number in range(5)}
    for number, texts in heard.items():
        if options.method in ("greedy", "sample"):
            first = found[number][0]
            assert len(texts) == len(first.tokens) and texts[-1] == first.text
        assert len(texts) >= len(found[number][0].tokens) - 1 and len(set(texts)) > 1
