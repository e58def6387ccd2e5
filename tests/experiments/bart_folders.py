"""Tiny Hugging Face folders of BART, mBART and NLLB with random weights, without PyTorch."""

import json
import math

import flax.linen as nn
import numpy as np
import tokenizers
from safetensors.numpy import save_file

from interop.bart import VARIANTS, model_config, read_config
from interop.hf_param_names import Positions, names, outer_names
from model import Transformer
from tests.experiments.marian_folders import lines
from train.state import param_shapes

MARKS = ["<s>", "<pad>", "</s>", "<unk>"]
CODES = ["eng_Latn", "deu_Latn"]
CLASSES = {"bart": "BartTokenizer", "mbart": "MBart50Tokenizer", "m2m_100": "NllbTokenizer"}
SMALL = dict(
    d_model=16,
    encoder_layers=1,
    decoder_layers=1,
    encoder_ffn_dim=24,
    decoder_ffn_dim=24,
    encoder_attention_heads=2,
    decoder_attention_heads=2,
    max_position_embeddings=70,
)


def save_folder(folder, kind="bart", generation=(), **changes):
    """Saves a complete folder; the model has two ids more than the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    library = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    library.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=120, special_tokens=MARKS)
    library.train_from_iterator([line for side in lines(100) for line in side], trainer)
    library.add_special_tokens(CODES)
    library.save(str(folder / "tokenizer.json"))
    settings = dict(tokenizer_class=CLASSES[kind], src_lang=CODES[0], tgt_lang=CODES[1])
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = dict(model_type=kind, vocab_size=library.get_vocab_size() + 2) | SMALL | changes
    (folder / "config.json").write_text(json.dumps(config))
    special = dict(pad_token_id=1, eos_token_id=2, decoder_start_token_id=2)
    search = dict(num_beams=2, max_length=20, bad_words_ids=[[1]], **special) | dict(generation)
    (folder / "generation_config.json").write_text(json.dumps(search))
    file = folder / "config.json"
    model = model_config(file, read_config(file, VARIANTS[kind]), VARIANTS[kind])
    shapes = nn.unbox(param_shapes(Transformer(model)))
    random = np.random.default_rng(0)
    tensors = {"model.shared.weight": random.normal(0, 1, (config["vocab_size"], 16))}
    for param in (*names(model), *outer_names(model)):
        box = shapes
        for key in param.param_path:
            box = box[key]
        size = param.size(box.shape)
        scale = 1 if isinstance(param, Positions) or len(size) == 1 else 2 / math.sqrt(size[-1])
        tensors[param.their_name] = random.normal(0, scale, size)
    save_file({name: x.astype(np.float32) for name, x in tensors.items()},
              folder / "model.safetensors")  # fmt: skip
    return library
