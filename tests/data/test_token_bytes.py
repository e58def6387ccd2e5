"""Byte surfaces of tokens, for every kind of tokenizer."""

import itertools
import json

import pytest
import tokenizers

from data.fairseq_tokenizer import DictionaryTokenizer
from data.hf_tokenizer import FastTokenizer
from data.marian_tokenizer import MarianTokenizer, MarianVocab
from data.tokenizer import Tokenizer
from decode.prefix_completion import split_open_word

TEXT = ["der Lehrer liest das große Buch", "die Lehre ist alt", "ein Lehrling lernt", "猫在睡觉"]
MARKS = ["<pad>", "</s>", "<unk>"]


def make_hf_tokenizer(byte_level):
    """A tokenizer.json of bytes, or of pieces with U+2581, with an added token."""
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
        return make_hf_tokenizer(kind == "bytes")
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


def test_surfaces_concatenate_to_the_text(tokenizer):
    surfaces = tokenizer.surfaces()
    assert len(surfaces) == tokenizer.vocab_size and not any(surfaces[:3])
    words = isinstance(tokenizer, DictionaryTokenizer)
    for text in ["der Lehrer", "die Lehre ist alt"] if words else [*TEXT, "größte größe é"]:
        (ids,) = tokenizer.encode([text])
        joined = b"".join(surfaces[id] for id in ids).decode(errors="replace").strip(" ")
        assert [joined] == [t.strip(" ") for t in tokenizer.decode([ids])]


def test_completions_are_all_tokens_that_start_with_the_prefix(tokenizer):
    for prefix in "Leh", "der Leh":
        (ids,) = tokenizer.encode([prefix])
        complete_ids, completion = split_open_word(prefix, ids, tokenizer)
        assert [*complete_ids, *completion.spelling] == ids
        assert len(complete_ids) == len(tokenizer.encode(["der"])[0]) * (prefix != "Leh")
        # Independently: all outputs of one or two more tokens, without partial characters.
        all_ids = [*range(4, tokenizer.vocab_size)]
        outputs = [[id] for id in all_ids] + [
            [*pair] for pair in itertools.product(completion.steps[0], all_ids)
        ]
        texts = tokenizer.decode([[*complete_ids, *output] for output in outputs])
        expected = {tuple(o) for o, t in zip(outputs, texts, strict=True) if t.startswith(prefix)}
        surfaces = tokenizer.surfaces()  # completions have no repeated initial space
        expected = {o for o in expected if not b"".join(surfaces[id] for id in o).startswith(b"  ")}
        completions = {(id,) for id in completion.ends[0]}
        completions |= {
            (id, end) for id, to in completion.steps[0].items() for end in completion.ends[to]
        }
        longer = {o for o in expected if len(o) == 2 and o[0] in completion.ends[0]}
        assert expected - longer == completions and len(completions) > 1


def test_an_unsupported_decoder_has_no_surfaces():
    learned = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "<unk>": 1}, "<unk>"))
    learned.decoder = tokenizers.decoders.WordPiece()
    tokenizer = FastTokenizer.make(learned.to_str(), [0, 0, 1, 1, 0], ())
    assert tokenizer.surfaces() is None and split_open_word("a", [4], tokenizer) == ([4], None)
    assert json.loads(tokenizer.to_bytes())["order"] == [0, 0, 1, 1, 0]
