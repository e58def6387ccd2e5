"""Model sizes that exceed the weights are a one-line error before allocation or tracing."""

from dataclasses import replace
from pathlib import Path

import pytest

from data.errors import DataError
from interop.imported_model import check_sizes
from model import TransformerConfig

HUGE = 10**12
SMALL = TransformerConfig(
    vocab_size=50,
    encoder_layers=2,
    decoder_layers=2,
    d_model=16,
    d_ff=32,
    num_heads=4,
)
SIZES = {
    "encoder_layers": dict(encoder_layers=HUGE),
    "decoder_layers": dict(decoder_layers=HUGE),
    "layers that are scanned": dict(encoder_layers=HUGE, scan_layers=True),
    "d_model": dict(d_model=HUGE),
    "d_ff": dict(d_ff=HUGE),
    "num_heads": dict(num_heads=HUGE, d_k=4, d_v=4),
    "d_k": dict(d_k=HUGE),
    "d_v": dict(d_v=HUGE),
    "vocab_size": dict(vocab_size=HUGE),
    "target_vocab_size": dict(target_vocab_size=HUGE, tying="decoder"),
    "max_length": dict(max_length=HUGE, positions="learned"),
    "relative_num_buckets": dict(
        relative_num_buckets=HUGE, relative_max_distance=HUGE, positions="t5_bias"
    ),
    "relative_max_distance": dict(relative_max_distance=HUGE, positions="t5_bias"),
}


@pytest.mark.parametrize("case", SIZES)
def test_a_size_that_exceeds_the_weights_is_named(case):
    model = replace(SMALL, **SIZES[case])
    name = next(iter(SIZES[case]))
    with pytest.raises(DataError, match=f"^config.json: .*model.{name}={HUGE}.* ") as error:
        check_sizes(Path("config.json"), model, 80, 20_000)
    assert "\n" not in str(error.value)


def test_the_weights_of_a_model_suffice_and_fewer_do_not():
    config = Path("config.json")
    check_sizes(config, SMALL, 4, SMALL.vocab_size * SMALL.d_model)
    check_sizes(config, replace(SMALL, scan_layers=True), 1, SMALL.vocab_size * SMALL.d_model)
    check_sizes(config, replace(SMALL, max_length=HUGE), 80, 20_000)  # sinusoids have no table
    with pytest.raises(DataError, match="more tensors than the weights have, 1$"):
        check_sizes(config, SMALL, 1, 20_000)
    with pytest.raises(DataError, match="more numbers than the weights have, 500$"):
        check_sizes(config, SMALL, 80, 500)
