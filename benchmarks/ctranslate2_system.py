"""CTranslate2 with Heed's weights."""

import tempfile

import ctranslate2
import numpy as np
from ctranslate2.converters.utils import fuse_linear
from ctranslate2.specs import TransformerSpec
from ctranslate2.specs.common_spec import Activation, LinearSpec

from benchmarks.heed_system import parameters
from benchmarks.workloads import Workload
from data.batch import BOS, EOS, UNK
from model import TransformerConfig
from model.positions import sinusoids

BATCH = 32  # of mixed lengths


def make(config: TransformerConfig, workload: Workload, precision: str, cores: int, tokens: int):
    """Return a function that translates the workload once, and fields of its JSON line.

    All outputs of a batch get the length of its longest, so mixed lengths are sorted first.
    """
    translator = _load(config, parameters(config), precision, cores)
    jobs = [
        ([[str(i) for i in workload.sources[row]] for row in group], workload.lengths[group[0]])
        for group in workload.groups(BATCH)
    ]

    def run():
        for sources, length in jobs:
            results = translator.translate_batch(
                sources,
                beam_size=workload.beam_size,
                length_penalty=0.6,
                min_decoding_length=length,
                max_decoding_length=length,
            )
            assert all(len(result.hypotheses[0]) == length for result in results)

    return run, {}


def _load(config: TransformerConfig, params, precision: str, cores: int):
    tokens = [str(i) for i in range(config.vocab_size)]
    tokens[UNK], tokens[BOS], tokens[EOS] = "<unk>", "<s>", "</s>"
    spec = _spec(config, params)
    spec.register_source_vocabulary(tokens)
    spec.register_target_vocabulary(tokens)
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = config.norm_epsilon
    with tempfile.TemporaryDirectory() as directory:
        spec.validate()
        spec.optimize(quantization=precision)
        spec.save(directory)
        return ctranslate2.Translator(
            directory, device="cpu", compute_type=precision, intra_threads=cores
        )


def _spec(c: TransformerConfig, params) -> TransformerSpec:
    relu_post_norm = c.activation == "relu" and c.norm == "post" and c.positions == "sinusoidal"
    assert relu_post_norm and c.tying == "all" and not c.attention_bias, "the paper's model only"
    spec = TransformerSpec.from_config(
        (c.encoder_layers, c.decoder_layers),
        c.num_heads,
        pre_norm=False,
        activation=Activation.RELU,
    )
    table = np.array(params["embedding"]["table"], np.float32)
    positions = np.asarray(sinusoids(np.arange(1024), c.d_model))
    for side in spec.encoder, spec.decoder:
        embeddings = side.embeddings[0] if isinstance(side.embeddings, list) else side.embeddings
        embeddings.weight = table
        side.position_encodings.encodings = positions
    spec.decoder.projection.weight = table
    for i, layer in enumerate(spec.encoder.layer):
        layer_params = params[f"encoder_{i}"]
        _attention(
            layer.self_attention, layer_params["attention"], layer_params["attention_residual"]
        )
        _feed_forward(layer.ffn, layer_params)
    for i, layer in enumerate(spec.decoder.layer):
        layer_params = params[f"decoder_{i}"]
        _attention(
            layer.self_attention, layer_params["self_attention"], layer_params["self_residual"]
        )
        _attention(
            layer.attention,
            layer_params["cross_attention"],
            layer_params["cross_residual"],
            cross=True,
        )
        _feed_forward(layer.ffn, layer_params)
    return spec


def _attention(layer_spec, params, residual, cross: bool = False) -> None:
    width = params["query"].shape[0]
    query, key, value = (
        _linear(params[name].reshape(width, -1)) for name in ("query", "key", "value")
    )
    if cross:
        layer_spec.linear[0].weight = query.weight
        fuse_linear(layer_spec.linear[1], [key, value])
    else:
        fuse_linear(layer_spec.linear[0], [query, key, value])
    layer_spec.linear[-1].weight = _linear(params["out"].reshape(-1, width)).weight
    _norm(layer_spec.layer_norm, residual)


def _feed_forward(layer_spec, params) -> None:
    for spec_name, param_name in ("linear_0", "hidden"), ("linear_1", "out"):
        weights = params["feed_forward"][param_name]
        getattr(layer_spec, spec_name).weight = _linear(weights["kernel"]).weight
        getattr(layer_spec, spec_name).bias = np.asarray(weights["bias"], np.float32)
    _norm(layer_spec.layer_norm, params["feed_forward_residual"])


def _linear(kernel) -> LinearSpec:
    linear = LinearSpec()
    linear.weight = np.array(np.asarray(kernel, np.float32).T, order="C")
    return linear


def _norm(layer_spec, residual) -> None:
    layer_spec.gamma = np.asarray(residual["norm"]["scale"], np.float32)
    layer_spec.beta = np.asarray(residual["norm"]["bias"], np.float32)
