"""Parameter names of Hugging Face T5, without embeddings."""

from collections.abc import Iterator

from interop.hf_param_names import HFParamName
from model import TransformerConfig
from model.activations import ACTIVATIONS


def names(c: TransformerConfig) -> Iterator[HFParamName]:
    """Parameters of encoder and decoder layers and of the final norms."""
    projections = {"q": "query", "k": "key", "v": "value", "o": "out"}
    attentions = {
        "encoder": [("SelfAttention", "attention", "attention_residual")],
        "decoder": [
            ("SelfAttention", "self_attention", "self_residual"),
            ("EncDecAttention", "cross_attention", "cross_residual"),
        ],
    }
    kernels = {"wi": "hidden", "wo": "out"}
    if ACTIVATIONS[c.activation].gated:
        kernels = {"wi_0": "hidden", "wi_1": "gate", "wo": "out"}
    for side in "encoder", "decoder":
        for i in range(getattr(c, f"{side}_layers")):
            block, heed_layer = f"{side}.block.{i}.layer", f"{side}_{i}"
            for index, (their_name, param_path, residual) in enumerate(attentions[side]):
                for letter, name in projections.items():
                    tensor = f"{block}.{index}.{their_name}.{letter}.weight"
                    yield HFParamName(
                        tensor, (heed_layer, param_path, name), 2 if name == "out" else 1
                    )
                norm = f"{block}.{index}.layer_norm.weight"
                yield HFParamName(norm, (heed_layer, residual, "norm", "scale"), 0)
            feed_forward = f"{block}.{len(attentions[side])}"
            for their_name, name in kernels.items():
                tensor = f"{feed_forward}.DenseReluDense.{their_name}.weight"
                yield HFParamName(tensor, (heed_layer, "feed_forward", name, "kernel"), 1)
            norm = f"{feed_forward}.layer_norm.weight"
            yield HFParamName(norm, (heed_layer, "feed_forward_residual", "norm", "scale"), 0)
        yield HFParamName(f"{side}.final_layer_norm.weight", (f"{side}_norm", "scale"), 0)
