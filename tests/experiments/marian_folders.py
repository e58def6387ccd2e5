"""Hugging Face folders of Marian models with random weights and small vocabularies."""

import io
import json

import numpy as np
import sentencepiece
from safetensors.numpy import save_file

from data.demo import Demo
from interop.hf_marian import model_config, read_config
from interop.hf_param_names import names
from tests.decode.tiny_model import parameters

CODES = (">>fr<<", ">>de<<", ">>pt_br<<")
SMALL = dict(
    d_model=32,
    encoder_layers=2,
    decoder_layers=2,
    encoder_ffn_dim=48,
    decoder_ffn_dim=48,
    encoder_attention_heads=4,
    decoder_attention_heads=4,
    activation_function="swish",
    scale_embedding=True,
    max_position_embeddings=512,
)


def lines(count=400):
    """Demo sentences in English and German."""
    pairs = Demo("train", 0, "en", "de")
    return [pairs[i][0] for i in range(count)], [pairs[i][1] for i in range(count)]


def train_spm(sentences, size, kind="unigram", **options) -> bytes:
    """A SentencePiece model as in OPUS-MT: default ids, no byte fallback."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, vocab_size=size, model_type=kind,
        minloglevel=3, num_threads=1, **options,
    )  # fmt: skip
    return model.getvalue()


def words(*models: bytes) -> list[str]:
    """The pieces of all models, without duplicates."""
    pieces: dict[str, None] = {}
    for model in models:
        processor = sentencepiece.SentencePieceProcessor()
        processor.LoadFromSerializedProto(model)
        for i in range(processor.get_piece_size()):
            if not (processor.is_control(i) or processor.is_unknown(i)):
                pieces[processor.id_to_piece(i)] = None
    return list(pieces)


def table(pieces, codes=CODES):
    """Word ids in OPUS-MT's order: EOS, UNK, all others, PAD."""
    all_words = ["</s>", "<unk>", *codes, *(p for p in pieces if p not in codes), "<pad>"]
    return {word: id for id, word in enumerate(all_words)}


def save_vocabulary(folder, source: bytes, target: bytes, ids, target_ids=None, **settings):
    """Saves both SentencePiece models, one or two vocabularies, and the tokenizer's settings."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "source.spm").write_bytes(source)
    (folder / "target.spm").write_bytes(target)
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False))
    settings |= {"source_lang": "en", "target_lang": "de", "tokenizer_class": "MarianTokenizer"}
    if target_ids:
        (folder / "target_vocab.json").write_text(json.dumps(target_ids, ensure_ascii=False))
        settings["separate_vocabs"] = True
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def save_weights(folder, ids, generation=(), **changes):
    """Saves a random model of these words: config, generation config and tensors."""
    size, pad = len(ids), ids["<pad>"]
    special = dict(pad_token_id=pad, eos_token_id=ids["</s>"], decoder_start_token_id=pad)
    config = dict(model_type="marian", vocab_size=size, **special) | SMALL | changes
    (folder / "config.json").write_text(json.dumps(config))
    search = dict(num_beams=3, max_length=20, bad_words_ids=[[pad]], **special) | dict(generation)
    (folder / "generation_config.json").write_text(json.dumps(search))
    model = model_config(folder / "config.json", read_config(folder / "config.json"))
    params = parameters(model)
    tensors = {"model.shared.weight": np.asarray(params["embedding"]["table"][1:])}
    tensors["final_logits_bias"] = np.linspace(-1, 1, size, dtype=np.float32)[None]
    save_file(tensors | hf_tensors(names(model), params), folder / "model.safetensors")


def hf_tensors(names, params):
    """Hugging Face's tensors of these names, from Heed's parameters."""
    tensors = {}
    for param in names:
        leaf = params
        for key in param.param_path:
            leaf = leaf[key]
        tensors[param.their_name] = param.store(np.asarray(leaf))
    return tensors


def save_folder(folder, **options):
    """Saves a complete OPUS-MT folder; returns the ids of its words."""
    english, german = lines(100)
    models = train_spm(english, 70, "bpe"), train_spm(german, 70, "bpe")
    ids = table(words(*models))
    save_vocabulary(folder, *models, ids)
    save_weights(folder, ids, **options)
    return ids
