"""A text is the sum of its ids' surfaces, in every kind of tokenizer."""

import itertools
import json

import pytest
import tokenizers

from data.fairseq_tokenizer import DictionaryTokenizer
from data.hf_tokenizer import FastTokenizer
from data.marian_tokenizer import MarianTokenizer, MarianVocab
from data.tokenizer import Tokenizer
from decode.prefix_completion import open_end

TEXT = ["der Lehrer liest das große Buch", "die Lehre ist alt", "ein Lehrling lernt", "猫在睡觉"]
MARKS = ["<pad>", "</s>", "<unk>"]


def library(byte_level):
    """A tokenizer.json of bytes, or of pieces with U+2581; with a word that is added."""
    learned = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token="<unk>"))
    letters = []
    if byte_level:
        letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
        learned.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
        learned.decoder = tokenizers.decoders.ByteLevel()
    else:
        learned.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
        learned.decoder = tokenizers.decoders.Metaspace()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=MARKS, initial_alphabet=letters, show_progress=False
    )
    learned.train_from_iterator(TEXT * 3, trainer)
    learned.add_tokens(["größte"])
    size = learned.get_vocab_size()
    order = [0, 0, 1, 2, *range(3, size)]
    return FastTokenizer.make(learned.to_str(), order, ())


def make(kind):
    if kind in ("bpe", "unigram"):
        return Tokenizer.train(TEXT * 3, 330 if kind == "bpe" else 290, kind)
    if kind in ("bytes", "pieces"):
        return library(kind == "bytes")
    if kind == "marian":
        model = Tokenizer.train(TEXT * 3, 330)
        words = tuple(model.pieces(range(4, 330)))
        return MarianTokenizer.make(
            model.to_bytes(), model.to_bytes(), MarianVocab((">>fr<<", *words))
        )
    words = ["Leh@@", "rer", "Lehrer", "Lehre", "Leh", "Le@@", "h", "der", "die", "ist", "alt", "r"]
    words += [f"{letter}@@" for letter in "dieralsthL"] + ["e", "t"]
    merges = "#version: 0.2\nL e\nLe h</w>\nd e\nde r</w>\n"
    return DictionaryTokenizer.make(words, merges if kind == "merges" else None)


KINDS = ["bpe", "unigram", "bytes", "pieces", "marian", "words", "merges"]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return make(request.param)


def test_a_text_is_the_sum_of_its_surfaces(tokenizer):
    surfaces = tokenizer.surfaces()
    assert len(surfaces) == tokenizer.vocab_size and not any(surfaces[:3])
    words = isinstance(tokenizer, DictionaryTokenizer)
    for text in ["der Lehrer", "die Lehre ist alt"] if words else [*TEXT, "größte größe é"]:
        (ids,) = tokenizer.encode([text])
        shown = b"".join(surfaces[id] for id in ids).decode(errors="replace").strip(" ")
        assert [shown] == [t.strip(" ") for t in tokenizer.decode([ids])]


def test_every_completion_begins_with_the_prefix(tokenizer):
    for prefix in "Leh", "der Leh":
        (ids,) = tokenizer.encode([prefix])
        whole, completion = open_end(prefix, ids, tokenizer)
        assert [*whole, *completion.spelling] == ids
        assert len(whole) == len(tokenizer.encode(["der"])[0]) * (prefix != "Leh")
        # By another road: all outputs of one or two more tokens, but for bytes of half a character.
        every = [*range(4, tokenizer.vocab_size)]
        outputs = [[id] for id in every] + [
            [*pair] for pair in itertools.product(completion.steps[0], every)
        ]
        texts = tokenizer.decode([[*whole, *output] for output in outputs])
        right = {tuple(o) for o, t in zip(outputs, texts, strict=True) if t.startswith(prefix)}
        surfaces = tokenizer.surfaces()  # more than one space at the beginning is left out of ours
        right = {o for o in right if not b"".join(surfaces[id] for id in o).startswith(b"  ")}
        ours = {(id,) for id in completion.ends[0]}
        ours |= {(id, end) for id, to in completion.steps[0].items() for end in completion.ends[to]}
        longer = {o for o in right if len(o) == 2 and o[0] in completion.ends[0]}
        assert right - longer == ours and len(ours) > 1


def test_a_decoder_of_another_kind_tells_no_surfaces():
    learned = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "<unk>": 1}, "<unk>"))
    learned.decoder = tokenizers.decoders.WordPiece()
    made = FastTokenizer.make(learned.to_str(), [0, 0, 1, 1, 0], ())
    assert made.surfaces() is None and open_end("a", [4], made) == ([4], None)
    assert json.loads(made.to_bytes())["order"] == [0, 0, 1, 1, 0]
