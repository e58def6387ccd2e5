"""Hugging Face folders of T5 models with random weights and small vocabularies."""

import json
from functools import cache

import numpy as np
from safetensors.numpy import save_file

from data.marian_tokenizer import processor
from interop.t5 import model_config, read_config
from interop.t5_param_names import names
from tests.decode.tiny_model import parameters
from tests.experiments.marian_folders import hf_tensors, lines, train_spm

SMALL = dict(
    model_type="t5",
    d_model=32,
    d_kv=6,
    d_ff=48,
    num_layers=2,
    num_decoder_layers=1,
    num_heads=4,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=20,
)


@cache
def spiece(size=90) -> bytes:
    """A SentencePiece model as in T5: PAD, EOS and UNK, then the others."""
    english, german = lines(400)
    text = english + german if size > 100 else english[:100]
    return train_spm(text, size, pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False)


def save_vocabulary(folder, size=90, **settings) -> int:
    """Saves SentencePiece and the tokenizer's settings; returns the number of words."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "spiece.model").write_bytes(spiece(size))
    settings = dict(tokenizer_class="T5Tokenizer", extra_ids=10) | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return processor(spiece(size)).get_piece_size()


def save_weights(folder, size=128, tied=True, generation=(), **changes):
    """Saves a random model of `size` words: config, generation config and tensors."""
    special = dict(pad_token_id=0, eos_token_id=1, decoder_start_token_id=0)
    config = SMALL | dict(vocab_size=size, **special) | changes
    (folder / "config.json").write_text(json.dumps(config))
    search = dict(num_beams=3, max_length=20, **special) | dict(generation)
    (folder / "generation_config.json").write_text(json.dumps(search))
    model = model_config(folder / "config.json", read_config(folder / "config.json"))
    params = parameters(model)
    table = np.asarray(params["embedding"]["table"][1:])
    tensors = {"shared.weight": table}
    if not tied:
        tensors["lm_head.weight"] = table[::-1].copy()
    for side in "encoder", "decoder":
        name = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        tensors[name] = np.asarray(params[f"{side}_bias"]["table"])
    save_file(tensors | hf_tensors(names(model), params), folder / "model.safetensors")


def save_folder(folder, **options):
    """Saves a complete T5 folder."""
    save_vocabulary(folder)
    save_weights(folder, **options)
