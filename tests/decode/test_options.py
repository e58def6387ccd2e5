"""What a search cannot do is refused in one line that names the option."""

import re
from dataclasses import replace

import pytest

from data.batch import EOS, UNK
from decode.options import InputError, SearchOptions
from model import Transformer
from tests.decode.tiny_model import CONFIG, parameters, translator


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "bem"}, "not one of: beam, greedy, sample, mbr"),
        ({"beam_size": 0}, "--beam_size=0"),
        ({"beam_size": 301}, "--beam_size=301"),
        ({"top_k": 301, "method": "sample"}, "--top_k=301 must be from 0 to .* size, 300"),
        ({"banned": ((5, 6), (5, 300))}, r"--forbid: ids \[5, 300\] must be from 0 to 299"),
        ({"banned": ((-1,),)}, r"--forbid: ids \[-1\] must be from 0 to 299"),
        ({"banned": ((5, EOS), (EOS,))}, f"--forbid: id {EOS} alone is every output's end"),
        ({"long_input": "cut:3"}, "--long_input=cut:3"),
    ],
)
def test_bad_options_are_named(params, vocabulary, options, message):
    with pytest.raises(InputError, match=message):
        translator(params, vocabulary, **options)


def test_an_ensemble_of_other_vocabularies_is_refused(params, vocabulary):
    other = replace(CONFIG, vocab_size=320)
    with pytest.raises(InputError, match=r"share one vocabulary, .* \(300, 300\), \(320, 320\)"):
        translator(params, vocabulary, others=[(Transformer(other), parameters(other))])


def test_a_line_that_nothing_is_left_for_is_named(params, vocabulary):
    everything = tuple((token,) for token in range(UNK + 1, CONFIG.target_vocab))
    nothing = translator(params, vocabulary, banned=everything, min_length=3)
    with pytest.raises(InputError, match="line 1: no output has a finite score: .*--forbid"):
        nothing.translate(["a book"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "greedy", "beam_size": 3}, "--beam_size=3 has no meaning with --method=greedy"),
        ({"temperature": 0.5}, "--temperature=0.5 has no meaning with --method=beam"),
        ({"num_groups": 3}, "--num_groups=3 must divide --beam_size=4"),
        ({"stopping": "limit", "patience": 2.0}, "--patience is for --stopping=full"),
        ({"n_best": 5}, "--n_best=5 is more than there are, 4: raise --beam_size"),
        ({"min_length": 9, "max_length": 3}, "--min_length=9 is more than --max_length=3"),
        ({"penalty": "none", "alpha": 1.0}, "--alpha=1.0 has no meaning with --penalty=none"),
        ({"alpha": float("nan")}, "--alpha=nan must be from -10 to 10"),
        ({"alpha": -1000.0}, "--alpha=-1000.0 must be from -10 to 10"),
        ({"coverage": 1e39}, "--coverage=1e+39 must be from 0 to 1000"),
        ({"temperature": 1e-40, "method": "sample"}, "--temperature=1e-40 must be from 0.001 to"),
        ({"patience": 1e9}, "--patience=1000000000.0 must be from"),
        ({"max_length_offset": 10**9}, "--max_length_offset=1000000000 must be from 0 to"),
        ({"seed": 2**32, "method": "sample"}, "--seed=4294967296 must be from 0 to 4294967295"),
        ({"top_p": 0.0}, "--top_p=0.0 must be from 0.001 to 1"),
        (
            {"diversity_penalty": 2.0},
            "--diversity_penalty=2.0 keeps --num_groups apart, but there is one",
        ),
        ({"n_best": 2, "method": "greedy"}, "--n_best=2 is more than there are, 1: use --me"),
        (
            {"num_samples": 3, "method": "sample"},
            "--num_samples=3 draws more than --n_best=1 returns",
        ),
        ({"method": "mbr"}, "--method=mbr compares samples, and --num_samples is 1: raise it"),
        ({"utility": "ter"}, "--utility=ter is not one of: chrf, bleu"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        SearchOptions(**options)


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({"method": "greedy"}, "beam_size"),
        ({}, "seed"),
        ({}, "utility"),
        ({}, "diversity_penalty"),
        ({"stopping": "limit"}, "patience"),
        ({"penalty": "none"}, "alpha"),
    ],
)
def test_what_was_given_for_nothing_is_refused_even_at_its_default(options, given):
    options = SearchOptions(**options)
    options.reject_unused(["method", "penalty", "n_best"])
    with pytest.raises(InputError, match=f"--{given}"):
        options.reject_unused([given])
