"""Every option of a search does what it does in the plain one."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from data.batch import BOS, EOS, PAD, UNK, pad_rows
from decode import transforms as T
from decode.beam import beam_search
from decode.diverse import diverse_beam_search
from decode.families import make_generator
from decode.length_normalization import average, gnmt
from decode.mbr import expected_utilities
from decode.options import SearchOptions
from decode.sample import greedy, sample, sampled
from decode.search import reference_step, search
from decode.stopping import at_limit, when_full, when_unbeatable
from decode.token_constraints import TokenConstraints
from decode.weights import pack
from model import Transformer, init_cache
from tests.decode.tiny_model import CONFIG, asked, parameters, same, sentences, translator


def test_width_one_is_greedy(params, vocabulary):
    text = sentences(6)
    same(
        translator(params, vocabulary, beam_size=1).hypotheses(text),
        translator(params, vocabulary, method="greedy").hypotheses(text),
    )


def test_greedy_is_a_loop_over_the_whole_model(params):
    src = jnp.array([[5, 6, 7, EOS], [8, EOS, 0, 0]], jnp.int32)
    limits = [7, 5]
    found = search(
        [make_generator(CONFIG)],
        [pack(CONFIG, params)],
        asked(src, limits),
        options=SearchOptions(method="greedy"),
        max_length=8,
    )
    apply = jax.jit(Transformer(CONFIG).apply)
    for b in range(2):
        output = [BOS]
        while output[-1] != EOS:
            args = src[b : b + 1], pad_rows([output], 1, 8)
            logits = np.array(apply({"params": params}, *args)[0, len(output) - 1])
            logits[[0, BOS, UNK]] = -np.inf
            output.append(int(logits.argmax()) if len(output) < limits[b] else EOS)
        assert found.tokens[b, 0, : found.lengths[b, 0]].tolist() == output[1:]


BANNED = ((70,), (245, 245))
# What an option is in the plain search: transforms, and other arguments. With alpha 3 it pays to go
# on, so that stopping rules differ.
LONG = dict(alpha=3.0), dict(length_norm=gnmt(3.0))
BEAMS = {
    "wide": (dict(beam_size=9, n_best=9), (), {}),
    "first": (LONG[0], (), LONG[1]),
    "bounded": (
        LONG[0] | dict(stopping="unbeatable"),
        (),
        LONG[1] | dict(stopping=when_unbeatable()),
    ),
    "never": (LONG[0] | dict(stopping="limit"), (), LONG[1] | dict(stopping=at_limit())),
    "patience": (LONG[0] | dict(patience=3.0), (), LONG[1] | dict(stopping=when_full(3.0))),
    "average": (dict(penalty="average", alpha=1.5), (), dict(length_norm=average(1.5))),
    "none": (dict(penalty="none"), (), dict(length_norm=gnmt(0.0))),
    "groups": (
        dict(num_groups=2, diversity_penalty=3.0),
        (),
        dict(num_groups=2, diversity_penalty=3.0),
    ),
    "repetition": (dict(repetition_penalty=3.0), [T.repetition_penalty(3.0)], {}),
    "ban": (dict(banned=BANNED), [T.ban_phrases(BANNED)], {}),
    "ngrams": (dict(no_repeat_ngrams=1), [T.no_repeat_ngrams(1)], {}),
    "min_length": (dict(min_length=9), (), dict(min_length=9)),
    "all": (
        dict(repetition_penalty=2.0, banned=BANNED, no_repeat_ngrams=2, min_length=3),
        [T.repetition_penalty(2.0), T.ban_phrases(BANNED), T.no_repeat_ngrams(2)],
        dict(min_length=3),
    ),
}
SAMPLES = {
    "seed": (dict(seed=7), ()),
    "temperature": (dict(temperature=0.5), [T.temperature(0.5)]),
    "top_k": (dict(top_k=3), [T.top_k(3)]),
    "top_p": (dict(top_p=0.5), [T.top_p(0.5)]),
    "min_p": (dict(min_p=0.5), [T.min_p(0.5)]),
    "all": (
        dict(repetition_penalty=2.0, temperature=1.5, top_k=9, top_p=0.8, min_p=0.05),
        [T.repetition_penalty(2.0), T.temperature(1.5), T.top_k(9), T.top_p(0.8), T.min_p(0.05)],
    ),
}
USUAL = dict(stopping=when_full(), length_norm=gnmt(0.6))
SRC = jnp.array([[5, 6, 7, EOS], [280, EOS, 0, 0], [9, 290, 291, EOS]], jnp.int32)
LIMITS = jnp.array([12, 9, 12], jnp.int32)


@pytest.fixture(scope="module")
def undecided():
    """Parameters that think of many tokens, and of the end, at every step: every option matters."""
    params = parameters(CONFIG, 1.0)
    end = params["embedding"]["table"][EOS]
    params["decoder_1"]["feed_forward_residual"]["norm"]["bias"] += 6 * end / (end @ end)
    return params


def fast(params, config=CONFIG, **options):
    find = partial(
        search, [make_generator(config)], options=SearchOptions(**options), max_length=12
    )
    return jax.jit(find)([pack(config, params)], asked(SRC, LIMITS))


def plain(params, find, width, chain=(), config=CONFIG, **how):
    """The same by the plain step over the model itself, and a cache that has all its room."""
    model = Transformer(config)
    apply = partial(model.apply, {"params": params})
    cross = apply(apply(SRC, method="encode"), method="cross_kv")
    transform = T.chain(*chain) if chain else None
    step = reference_step(
        model, params, cross, SRC != PAD, TokenConstraints(how.pop("min_length", 1))
    )
    run = partial(find, step, transform=transform)
    how = dict(eos=EOS, max_length=12) | how
    how |= {"width": width} if find is sample else {"beam_size": width}
    cache = init_cache(config, (3, width), 12)
    return jax.jit(lambda cache: run(cache, jnp.full(3, BOS, jnp.int32), LIMITS, **how))(cache)


def as_one(left, right):
    np.testing.assert_allclose(left.scores, right.scores, rtol=1e-4, atol=1e-4)
    there = np.isfinite(right.scores)
    assert there.any()
    np.testing.assert_array_equal(left.tokens[there], right.tokens[there])
    np.testing.assert_array_equal(left.lengths[there], right.lengths[there])


@pytest.mark.parametrize("name", BEAMS)
def test_an_option_of_beam_search_does_what_it_does_in_the_plain_one(undecided, name):
    options, chain, how = BEAMS[name]
    width = options.get("beam_size", 4)
    find = diverse_beam_search if "num_groups" in how else beam_search
    found = fast(undecided, **options)
    as_one(found, plain(undecided, find, width, chain, **USUAL | how))
    if name not in ("first", "wide"):  # it does something
        usual = fast(undecided, alpha=options.get("alpha", 0.6))
        assert not np.allclose(found.scores, usual.scores, atol=1e-3)


def test_a_large_vocabulary_is_searched_through_its_blocks_alike():
    """As many blocks as real ones have: in the others' all are looked through."""
    config = replace(CONFIG, vocab_size=2300)
    params = parameters(config, 1.5)
    as_one(fast(params, config), plain(params, beam_search, 4, config=config, **USUAL))


TAILS = {
    "greedy": dict(method="greedy", min_length=2),
    "beam": dict(coverage=0.2, stopping="limit", alpha=3.0),
    "groups": dict(num_groups=2, diversity_penalty=3.0, stopping="limit", min_length=2),
    "sample": dict(method="sample", num_samples=3, n_best=3, top_p=0.9),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TAILS)
def test_the_last_to_end_go_on_by_themselves_as_among_the_others(undecided, name, monkeypatch):
    src = jax.random.randint(jax.random.key(0), (9, 4), UNK + 1, 300, jnp.int32)
    args = [pack(CONFIG, undecided)], asked(src.at[:, 3].set(EOS), [2, 12, 3, 2, 3, 3, 2, 12, 2])

    def found(tail):
        monkeypatch.setattr("decode.search._TAIL", tail)
        # They may begin in an early stage and end in the last.
        monkeypatch.setattr("decode.search.cache_stages", lambda length: (4, 8, length))
        find = partial(
            search, [make_generator(CONFIG)], options=SearchOptions(**TAILS[name]), max_length=12
        )
        return jax.jit(find)(*args)

    together, apart = found(99), found(4)
    assert together.lengths.max() > 5 and together.lengths[0].max() == 2
    np.testing.assert_array_equal(apart.tokens, together.tokens)
    np.testing.assert_array_equal(apart.lengths, together.lengths)
    for left, right in ((apart.scores, together.scores), (apart[3], together[3])):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", SAMPLES)
def test_an_option_of_sampling_does_what_it_does_in_the_plain_one(undecided, name):
    options, chain = SAMPLES[name]
    key = jax.random.key(options.get("seed", 0))
    keys = jax.vmap(partial(jax.random.fold_in, key))(asked(SRC, LIMITS).seeds)
    found = fast(undecided, method="sample", num_samples=3, n_best=3, **options)
    how = dict(select_token=sampled(keys), length_norm=gnmt(0.6))
    as_one(found, plain(undecided, sample, 3, chain, **how))
    default = fast(undecided, method="sample", num_samples=3, n_best=3)
    assert (found.tokens != default.tokens).any()
    if name == "top_k":
        expected = plain(undecided, sample, 1, select_token=greedy, length_norm=gnmt(0.6))
        as_one(fast(undecided, method="sample", top_k=1), expected)


def test_the_options_bound_an_outputs_length():
    limit = lambda source, longest=None, **options: SearchOptions(**options).limit(source, longest)  # noqa: E731
    assert limit(7) == 57 and limit(7, max_length_offset=3) == 10 and limit(7, longest=20) == 20
    assert limit(7, max_length=5) == 5 and limit(7, max_ratio=1.0) == 8  # its EOS counts as well
    assert limit(99, max_ratio=0.29) == 29  # whatever floats say
    assert limit(7, max_ratio=0.5) == 4 and limit(1, max_ratio=0.1) == 1


def test_samples_come_as_they_are_drawn_and_the_most_alike_is_the_best(params, vocabulary):
    text, model = sentences(5), parameters(CONFIG, 1.5)
    draw = lambda n, **o: translator(model, vocabulary, num_samples=n, **o).hypotheses(text)  # noqa: E731
    six, two = (draw(n, method="sample", n_best=n) for n in (6, 2))
    same([each[:2] for each in six], two)  # more samples do not change the first ones
    assert any(first.score < second.score for first, second, *_ in six)
    other = draw(2, method="sample", n_best=2, seed=1)
    assert [h.tokens for h, _ in other] != [h.tokens for h, _ in two]
    for utility in "chrf", "bleu":
        found = draw(6, method="mbr", n_best=6, utility=utility)
        for ranked, drawn_ in zip(found, six, strict=True):
            texts = [h.text for h in drawn_]
            worth = dict(zip(texts, expected_utilities(texts, utility).tolist(), strict=True))
            assert ranked[0].text == max(texts, key=worth.get)
            assert [h.utility for h in ranked] == sorted(worth.values(), reverse=True)
            assert {h.text: h.utility for h in ranked} == worth  # each text once


def test_what_stands_for_no_text_cannot_be_chosen(params):
    model, src = Transformer(CONFIG), jnp.array([[5, 6, EOS]], jnp.int32)
    apply = lambda *args, **how: model.apply({"params": params}, *args, **how)  # noqa: E731
    cross = apply(apply(src, method="encode"), method="cross_kv")
    step = reference_step(model, params, cross, src != PAD)
    found, _ = step(jnp.full((1, 2), BOS), init_cache(CONFIG, (1, 2), 4), jnp.int32(0))
    found = found.logits - found.log_normalizer[..., None]
    whole = jax.nn.log_softmax(apply(src, jnp.full((1, 1), BOS)))[0, 0]
    assert np.flatnonzero(np.isneginf(found[0, 0])).tolist() == [PAD, BOS, UNK]
    allowed = [i for i in range(300) if i not in (PAD, BOS, UNK)]
    np.testing.assert_allclose(
        found[0, 1, jnp.array(allowed)], whole[jnp.array(allowed)], atol=1e-4
    )
