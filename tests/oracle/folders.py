"""Random Hugging Face models, saved by transformers."""

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    MarianConfig,
    MarianMTModel,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from tests.experiments.marian_folders import SMALL


def save_model(
    folder,
    size,
    target_size=None,
    *,
    pad=None,
    scale=1.0,
    eos_bias=0.0,
    seed=0,
    generation=(),
    **changes,
):
    """Saves a random model of `size` words; EOS is likelier in longer outputs.

    As in test_marian.py, `eos_bias` is added to EOS along slowly growing position dimensions.
    """
    torch.manual_seed(seed)
    config = MarianConfig(
        **SMALL | changes,
        vocab_size=size,
        decoder_vocab_size=target_size or size,
        pad_token_id=size - 1 if pad is None else pad,
        decoder_start_token_id=size - 1 if pad is None else pad,
        eos_token_id=0,
        bos_token_id=None,
        forced_eos_token_id=0,
    )
    model = MarianMTModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embed_positions" in name:
                continue
            parameter.mul_(scale).add_(torch.randn_like(parameter) * 0.1)
        model.final_logits_bias.copy_(torch.randn_like(model.final_logits_bias) * 0.3)
        model.model.decoder.embed_tokens.weight[config.pad_token_id] = 0  # Marian's start embedding
        for table in {model.model.decoder.embed_tokens, model.lm_head}:
            table.weight[0, 3:7] += eos_bias
    model.generation_config = GenerationConfig(
        **dict(
            num_beams=6,
            max_length=25,
            pad_token_id=config.pad_token_id,
            eos_token_id=0,
            decoder_start_token_id=config.pad_token_id,
            forced_eos_token_id=0,
            bad_words_ids=[[config.pad_token_id]],
        )
        | dict(generation)
    )
    model.save_pretrained(folder)
    return model


def save_t5(folder, size, *, kind="t5", untied=False, noise=0.2, seed=0, generation=(), **changes):
    """Saves a random T5 or mT5 of `size` words; `untied`: with a separate output table."""
    torch.manual_seed(seed)
    config, model = {
        "t5": (T5Config, T5ForConditionalGeneration),
        "mt5": (MT5Config, MT5ForConditionalGeneration),
    }[kind]
    sizes = dict(d_model=32, d_kv=6, d_ff=48, num_layers=3, num_decoder_layers=2, num_heads=4)
    config = config(**sizes | changes, vocab_size=size, decoder_start_token_id=0)
    model = model(config).eval()
    with torch.no_grad():
        if untied:
            model.lm_head.weight = torch.nn.Parameter(torch.randn(size, 32) * 0.5)
        for name, parameter in model.named_parameters():
            width = 2.0 if "relative" in name else noise * (2 if "shared" in name else 1)
            parameter.mul_(0.3).add_(torch.randn_like(parameter) * width)
        model.get_output_embeddings().weight[1] *= 2  # outputs end at various lengths
    defaults = dict(max_length=25, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    model.generation_config = GenerationConfig(**defaults | dict(generation))
    model.save_pretrained(folder)
    return model


def random_ids(count, size, seed=0, max_length=12):
    """Source sentences of word ids without EOS."""
    random = np.random.default_rng(seed)
    return [
        random.integers(2, size - 1, random.integers(1, max_length)).tolist() for _ in range(count)
    ]
