"""Folders of BART's kin as Hugging Face has them, tiny and of random weights, without PyTorch."""

import json
import math

import flax.linen as nn
import numpy as np
import tokenizers
from safetensors.numpy import save_file

from interop.bart import KINDS, model_config, read_config
from interop.hf_param_names import Positions, around, names
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
    """A whole folder; its model has two ids more than the tokenizer has words."""
    folder.mkdir(parents=True, exist_ok=True)
    learned = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    learned.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    learned.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=120, special_tokens=MARKS)
    learned.train_from_iterator([line for side in lines(100) for line in side], trainer)
    learned.add_special_tokens(CODES)
    learned.save(str(folder / "tokenizer.json"))
    settings = dict(tokenizer_class=CLASSES[kind], src_lang=CODES[0], tgt_lang=CODES[1])
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = dict(model_type=kind, vocab_size=learned.get_vocab_size() + 2) | SMALL | changes
    (folder / "config.json").write_text(json.dumps(config))
    special = dict(pad_token_id=1, eos_token_id=2, decoder_start_token_id=2)
    searched = dict(num_beams=2, max_length=20, bad_words_ids=[[1]], **special) | dict(generation)
    (folder / "generation_config.json").write_text(json.dumps(searched))
    file = folder / "config.json"
    model = model_config(file, read_config(file, KINDS[kind]), KINDS[kind])
    boxes = nn.unbox(param_shapes(Transformer(model)))
    random = np.random.default_rng(0)
    tensors = {"model.shared.weight": random.normal(0, 1, (config["vocab_size"], 16))}
    for named in (*names(model), *around(model)):
        box = boxes
        for key in named.param_path:
            box = box[key]
        size = named.size(box.shape)
        scale = 1 if isinstance(named, Positions) or len(size) == 1 else 2 / math.sqrt(size[-1])
        tensors[named.their_name] = random.normal(0, scale, size)
    save_file({name: x.astype(np.float32) for name, x in tensors.items()},
              folder / "model.safetensors")  # fmt: skip
    return learned
