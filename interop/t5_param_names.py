"""Parameter names of Hugging Face T5; embeddings excluded."""

from collections.abc import Iterator

from interop.hf_param_names import Named
from model import TransformerConfig
from model.activations import ACTIVATIONS


def names(c: TransformerConfig) -> Iterator[Named]:
    """All parameters of encoder and decoder layers and their last norms."""
    projections = {"q": "query", "k": "key", "v": "value", "o": "out"}
    attentions = {
        "encoder": [("SelfAttention", "attention", "attention_frame")],
        "decoder": [
            ("SelfAttention", "self_attention", "self_frame"),
            ("EncDecAttention", "cross_attention", "cross_frame"),
        ],
    }
    forward = {"wi": "hidden", "wo": "out"}
    if ACTIVATIONS[c.activation].gated:
        forward = {"wi_0": "hidden", "wi_1": "gate", "wo": "out"}
    for side in "encoder", "decoder":
        for i in range(getattr(c, f"{side}_layers")):
            block, own = f"{side}.block.{i}.layer", f"{side}_{i}"
            for place, (theirs, ours, frame) in enumerate(attentions[side]):
                for letter, name in projections.items():
                    tensor = f"{block}.{place}.{theirs}.{letter}.weight"
                    yield Named(tensor, (own, ours, name), 2 if name == "out" else 1)
                norm = f"{block}.{place}.layer_norm.weight"
                yield Named(norm, (own, frame, "norm", "scale"), 0)
            last = f"{block}.{len(attentions[side])}"
            for theirs, name in forward.items():
                tensor = f"{last}.DenseReluDense.{theirs}.weight"
                yield Named(tensor, (own, "feed_forward", name, "kernel"), 1)
            norm = f"{last}.layer_norm.weight"
            yield Named(norm, (own, "feed_forward_frame", "norm", "scale"), 0)
        yield Named(f"{side}.final_layer_norm.weight", (f"{side}_norm", "scale"), 0)
