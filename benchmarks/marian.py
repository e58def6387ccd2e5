"""Heed's weights in Hugging Face's Marian, in PyTorch."""

import numpy as np
import torch
from transformers import MarianConfig, MarianMTModel

from data.batch import BOS, EOS, PAD
from interop import export_hf_marian
from model import TransformerConfig


def marian_config(c: TransformerConfig, length: int = 1024, **overrides) -> MarianConfig:
    """Marian config with the sizes of `c` and Heed's special ids, for up to `length` tokens."""
    export_hf_marian.check(c)
    special: dict[str, int | None] = dict(pad_token_id=PAD, eos_token_id=EOS, bos_token_id=BOS)
    special |= dict(decoder_start_token_id=BOS, forced_eos_token_id=None)
    sizes = dict(vocab_size=c.vocab_size, decoder_vocab_size=c.target_vocab)
    return MarianConfig(**export_hf_marian.settings(c, special, length) | sizes | overrides)


def marian(c: TransformerConfig, params, length: int = 1024) -> MarianMTModel:
    """Marian model with these parameters.

    Marian's attention has biases; without biases in the model they are zero.
    """
    model = MarianMTModel(marian_config(c, length))
    id_maps = [*range(c.vocab_size)], [*range(c.target_vocab)]
    arrays = export_hf_marian.tensors(c, params, *id_maps)
    tensors = {name: torch.from_numpy(np.array(x)) for name, x in arrays.items()}
    result = model.load_state_dict(tensors, strict=False)
    assert not result.unexpected_keys
    return model.eval()
