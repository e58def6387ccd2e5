"""Folders of Marian models as Hugging Face has them, of random weights and vocabularies of ours."""

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
    """Sentences of both languages of the demo."""
    pairs = Demo("train", 0, "en", "de")
    return [pairs[i][0] for i in range(count)], [pairs[i][1] for i in range(count)]


def learn(sentences, size, kind="unigram", **options) -> bytes:
    """A SentencePiece model as OPUS-MT's: its own ids, no byte fallback."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences), model_writer=model, vocab_size=size, model_type=kind,
        minloglevel=3, num_threads=1, **options,
    )  # fmt: skip
    return model.getvalue()


def words(*models: bytes) -> list[str]:
    """The pieces of all of them, each once."""
    found: dict[str, None] = {}
    for model in models:
        processor = sentencepiece.SentencePieceProcessor()
        processor.LoadFromSerializedProto(model)
        for i in range(processor.get_piece_size()):
            if not (processor.is_control(i) or processor.is_unknown(i)):
                found[processor.id_to_piece(i)] = None
    return list(found)


def table(pieces, codes=CODES):
    """OPUS-MT's order: the end, the unknown word, all others, padding last."""
    every = ["</s>", "<unk>", *codes, *(p for p in pieces if p not in codes), "<pad>"]
    return {word: id for id, word in enumerate(every)}


def save_vocabulary(folder, source: bytes, target: bytes, ids, target_ids=None, **settings):
    """Both SentencePiece models, one table or two, and what the tokenizer is to know."""
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
    """A random model of these words, without PyTorch: config, generation config and tensors."""
    size, pad = len(ids), ids["<pad>"]
    special = dict(pad_token_id=pad, eos_token_id=ids["</s>"], decoder_start_token_id=pad)
    config = dict(model_type="marian", vocab_size=size, **special) | SMALL | changes
    (folder / "config.json").write_text(json.dumps(config))
    searched = dict(num_beams=3, max_length=20, bad_words_ids=[[pad]], **special) | dict(generation)
    (folder / "generation_config.json").write_text(json.dumps(searched))
    model = model_config(folder / "config.json", read_config(folder / "config.json"))
    params = parameters(model)
    tensors = {"model.shared.weight": np.asarray(params["embedding"]["table"][1:])}
    tensors["final_logits_bias"] = np.linspace(-1, 1, size, dtype=np.float32)[None]
    save_file(tensors | theirs(names(model), params), folder / "model.safetensors")


def theirs(names, params):
    """The tensors of these names, made of our parameters."""
    found = {}
    for named in names:
        leaf = params
        for key in named.param_path:
            leaf = leaf[key]
        found[named.their_name] = named.store(np.asarray(leaf))
    return found


def save_folder(folder, **options):
    """A whole folder, as OPUS-MT's are; returns the ids of its words."""
    english, german = lines(100)
    models = learn(english, 70, "bpe"), learn(german, 70, "bpe")
    ids = table(words(*models))
    save_vocabulary(folder, *models, ids)
    save_weights(folder, ids, **options)
    return ids
