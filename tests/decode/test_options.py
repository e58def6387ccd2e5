"""Invalid search options are rejected in one line that names the option."""

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
        ({"banned": ((5, EOS), (EOS,))}, f"--forbid: id {EOS} is EOS, which ends every output"),
        ({"long_input": "cut:3"}, "--long_input=cut:3"),
    ],
)
def test_invalid_options_are_named(params, vocabulary, options, message):
    with pytest.raises(InputError, match=message):
        translator(params, vocabulary, **options)


def test_an_ensemble_with_different_vocabularies_is_rejected(params, vocabulary):
    config = replace(CONFIG, vocab_size=320)
    with pytest.raises(InputError, match=r"share one vocabulary, .* \(300, 300\), \(320, 320\)"):
        translator(params, vocabulary, ensemble=[(Transformer(config), parameters(config))])


def test_a_line_without_a_finite_hypothesis_is_named(params, vocabulary):
    all_tokens = tuple((token,) for token in range(UNK + 1, CONFIG.target_vocab))
    limited = translator(params, vocabulary, banned=all_tokens, min_length=3)
    with pytest.raises(InputError, match="line 1: no output has a finite score: .*--forbid"):
        limited.translate(["a book"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "greedy", "beam_size": 3}, "--beam_size=3 has no meaning with --method=greedy"),
        ({"temperature": 0.5}, "--temperature=0.5 has no meaning with --method=beam"),
        ({"num_groups": 3}, "--num_groups=3 must divide --beam_size=4"),
        ({"stopping": "limit", "patience": 2.0}, "--patience is for --stopping=full"),
        ({"n_best": 5}, "--n_best=5 is more than the search returns, 4: raise --beam_size"),
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
            "--diversity_penalty=2.0 needs --num_groups above 1",
        ),
        ({"n_best": 2, "method": "greedy"}, "--n_best=2 is more than the search returns, 1: use"),
        (
            {"num_samples": 3, "method": "sample"},
            "--num_samples=3 draws more than --n_best=1 returns",
        ),
        ({"method": "mbr"}, "--method=mbr compares samples, and --num_samples is 1: raise it"),
        ({"utility": "ter"}, "--utility=ter is not one of: chrf, bleu"),
    ],
)
def test_conflicting_and_out_of_range_options_are_rejected(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        SearchOptions(**options)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"method": "greedy"}, "beam_size"),
        ({}, "seed"),
        ({}, "utility"),
        ({}, "diversity_penalty"),
        ({"stopping": "limit"}, "patience"),
        ({"penalty": "none"}, "alpha"),
    ],
)
def test_unused_options_are_rejected_even_at_their_default(options, flag):
    options = SearchOptions(**options)
    options.reject_unused(["method", "penalty", "n_best"])
    with pytest.raises(InputError, match=f"--{flag}"):
        options.reject_unused([flag])
