"""The decoding benchmark, on a tiny model."""

import re
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from absl.testing import flagsaver

from benchmarks import heed_system
from benchmarks.workloads import base, workload
from tests.experiments.commands import ROOT

SMALL = replace(
    base(), vocab_size=200, d_model=16, d_ff=32, num_heads=2, encoder_layers=1, decoder_layers=1
)


@pytest.mark.parametrize(("name", "tokens"), [("W1", 2560), ("W2", 2560), ("W3", 800), ("W4", 0)])
def test_workloads_match_their_descriptions(name, tokens):
    work = workload(name, base())
    assert work.tokens == (tokens or sum(map(len, work.sources)))
    assert work.beam_size == (1 if name == "W2" else 4)
    assert work.one_by_one == (name == "W3")
    if name == "W4":
        assert len(work.sources) == 200
        assert {min(work.lengths), max(work.lengths)} == {5, 80}


@pytest.mark.slow
def test_heed_decodes_a_workload_to_its_exact_lengths(monkeypatch):
    work = replace(workload("W4", SMALL), beam_size=2)
    work = replace(work, sources=work.sources[:9], lengths=work.lengths[:9])
    lengths_by_limits = {}
    search = heed_system.search

    def recording_search(*args, **options):
        result = search(*args, **options)
        heed_system.jax.debug.callback(
            lambda lengths, limits: lengths_by_limits.update(
                {tuple(limits.tolist()): lengths[:, 0]}
            ),
            result.lengths,
            args[2].limits,
        )
        return result

    monkeypatch.setattr(heed_system, "search", recording_search)
    run, facts = heed_system.make(SMALL, work, "float32", 1, 512)
    run()
    assert facts["compilations"] == len(lengths_by_limits) and facts["gflop_per_token"] > 0
    for limits, lengths in lengths_by_limits.items():
        assert list(limits) == lengths.tolist()


def test_unknown_peers_are_named(benchmark_main):
    decode = benchmark_main("decode")
    rejected = pytest.raises(decode.flags.IllegalFlagValueError, match="marian.*ctranslate2")
    with rejected, flagsaver.flagsaver(peers=["marian"]):
        pytest.fail("was accepted")


@pytest.mark.parametrize(
    ("installed", "flags", "line"),
    [
        (
            True,
            dict(peers=["transformers"], precision="int8"),
            "--peers=transformers does not support int8 on this machine, only float32 and bf",
        ),
        (
            True,
            dict(peers=["ctranslate2", "transformers"], peer_precision="bfloat16"),
            "--peers=ctranslate2 does not support bfloat16 on this machine, only float32 and",
        ),
        (
            False,
            dict(peers=["transformers"], precision="int8"),
            "--peers=transformers needs transformers and torch: pip install -e .[bench]",
        ),
    ],
)
def test_an_unusable_peer_is_rejected_before_any_starts(
    benchmark_main, monkeypatch, installed, flags, line
):
    decode = benchmark_main("decode")
    find_spec = lambda name: object() if installed else None  # noqa: E731
    monkeypatch.setattr(decode.interleaved.importlib.util, "find_spec", find_spec)
    peer = SimpleNamespace(get_supported_compute_types=lambda device: {"int8", "float32", "int16"})
    monkeypatch.setitem(sys.modules, "ctranslate2", peer)
    monkeypatch.setattr(decode.interleaved, "measure", lambda *args: pytest.fail("was started"))
    rejected = pytest.raises(SystemExit, match=re.escape(line))
    with rejected, flagsaver.flagsaver(**flags):
        decode.main([])


@pytest.mark.parametrize(("benchmark", "module"), [("decode", "{}_system"), ("train", "train_{}")])
def test_each_system_has_a_module(benchmark, module, benchmark_main):
    for system in "heed", *benchmark_main(benchmark)._PEERS:
        assert (ROOT / "benchmarks" / f"{module.format(system)}.py").exists(), system
