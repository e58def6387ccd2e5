"""The imported Marian tokenizer: same ids and texts as Hugging Face's MarianTokenizer."""

import json
import random

import pytest
from transformers import MarianTokenizer

from data.batch import BOS, EOS, UNK
from interop import hf_marian
from interop.tokenizer_config import read_tokenizer_config
from tests.experiments.marian_folders import SMALL, lines, save_vocabulary, table, train_spm, words

pytestmark = pytest.mark.filterwarnings("ignore")  # a recommendation of sacremoses

SCRIPTS = [  # first and last code points of Unicode ranges
    (0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x17F), (0x370, 0x3FF), (0x400, 0x4FF), (0x590, 0x6FF),
    (0x900, 0x97F), (0xE00, 0xE7F), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F),
    (0x20A0, 0x2BFF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xE000, 0xE010),
    (0xFB00, 0xFFFD), (0x1F300, 0x1FAFF), (0x1D400, 0x1D7FF), (0x0, 0x1F), (0x7F, 0x9F),
]  # fmt: skip
MARKS = ["</s>", "<unk>", "<pad>", "<s>", ">>fr<<", ">>xx<<", ">>", "<<", "\u2581", "\u200d", "\n"]
COUNT = 10_000


def mixed_lines():
    """Demo sentences and text of all scripts, some with special tokens inserted."""
    rng, (english, german) = random.Random(0), lines(1500)
    result = ["", " ", "\t", "</s>", ">>fr<<", ">>fr<< ", " >>fr<<a", ">>a b<<", "a</s><pad>b<unk>"]
    result += ["word " * 3000, "x" * 5000, "“quoted” — ‘it’s’ 3,5 % « non »… 【中】"]
    while len(result) < COUNT:
        kind = rng.random()
        if kind < 0.35:
            line = rng.choice(english if rng.random() < 0.7 else german)
        else:
            ranges = rng.choices(SCRIPTS, k=rng.randint(1, 3))
            line = "".join(
                chr(rng.randint(*rng.choice(ranges))) if rng.random() < 0.8 else " "
                for _ in range(rng.randint(0, 60))
            )
        if kind > 0.7 or kind < 0.1:
            for _ in range(rng.randint(1, 3)):
                position = rng.randint(0, len(line))
                line = line[:position] + rng.choice(MARKS) + line[position:]
        code = rng.choice([">>fr<<", ">>fr<< ", ">>xx<<"]) if kind > 0.9 else ""
        result.append(code + line)
    return result


@pytest.fixture(scope="module", params=["joint", "separate", "special"])
def tokenizers(request, tmp_path_factory):
    """Hugging Face's tokenizer, and the vocabulary imported from the same files."""
    folder = tmp_path_factory.mktemp(request.param)
    english, german = lines()
    source = train_spm(english * 4 + mixed_lines()[:200], 1200, character_coverage=0.99)
    target = train_spm(german, 400, "bpe", byte_fallback=request.param == "special")
    settings, tables = {}, [table(words(source, target)), None]
    if request.param == "separate":
        # Special tokens have the same id on both sides, as required.
        marks = ["</s>", "<unk>", "<pad>"]
        sides = ([*marks, *words(model)] for model in (source, target))
        tables = [{word: id for id, word in enumerate(side)} for side in sides]
    if request.param == "special":
        settings = dict(
            clean_up_tokenization_spaces=True,
            additional_special_tokens=[">>fr<<", "\u2581the"],
            added_tokens_decoder={"0": {"content": "</s>", "special": True, "lstrip": False}},
        )
    save_vocabulary(folder, source, target, *tables, **settings)
    config = dict(
        model_type="marian",
        **SMALL,
        vocab_size=len(tables[0]),
        decoder_vocab_size=len(tables[1] or tables[0]),
        share_encoder_decoder_embeddings=not tables[1],
    )
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    config = hf_marian.read_config(file)
    model, settings = hf_marian.model_config(file, config), read_tokenizer_config(folder, {})
    vocabulary, orders = hf_marian.read_vocabulary(folder, model, config, settings)
    return MarianTokenizer.from_pretrained(folder), vocabulary, orders


def test_ten_thousand_lines_have_equal_ids(tokenizers):
    reference, vocabulary, orders = tokenizers
    text = mixed_lines()
    assert len(text) == COUNT
    for side, tokenizer, order in zip(("text", "text_target"), vocabulary, orders, strict=True):
        expected = reference(**{side: text}).input_ids
        actual = [order[[*ids, EOS]].tolist() for ids in tokenizer.encode(text)]
        compared = zip(text, actual, expected, strict=True)
        differences = [line for line, row, expected_row in compared if row != expected_row]
        assert not differences, differences[:3]
    unknown = [UNK in ids for ids in vocabulary.source.encode(text)]
    assert 0.1 < sum(unknown) / COUNT < 0.9


def test_decoded_texts_are_equal(tokenizers):
    reference, vocabulary, orders = tokenizers
    target, order, rng = vocabulary.target, orders[1], random.Random(1)
    rows = target.encode(mixed_lines()[:2000])
    rows += [[rng.randrange(BOS, target.vocab_size) for _ in range(20)] for _ in range(1000)]
    expected = reference.batch_decode(
        [order[row].tolist() for row in rows], skip_special_tokens=True
    )
    assert target.decode(rows) == [text.replace("\n", " ") for text in expected]


@pytest.mark.parametrize("legacy", [False, True], ids=["tokenizer_config", "added_tokens"])
def test_added_tokens_are_decoded_unless_special(legacy, tmp_path):
    """Added tokens are recognized anywhere, before SentencePiece segments the text."""
    english, german = lines()
    models = train_spm(english, 300), train_spm(german, 400, "bpe")
    plain, special = ["<new>", "zwei Worte", "\u2581the", "ich"], ["<gone>", "\u2581a"]
    names = list(dict.fromkeys([*words(*models), *plain, *special]))
    ids = table(names)
    if legacy:
        settings = dict(extra_special_tokens=special)
        added = {word: ids[word] for word in plain + special}
        (tmp_path / "added_tokens.json").write_text(json.dumps(added))
    else:
        added = {ids[word]: dict(content=word, special=False) for word in plain[1:]}
        added |= {ids[word]: dict(content=word, special=True) for word in special}
        added |= {ids["<new>"]: dict(content="<new>"), 0: dict(content="</s>", special=False)}
        settings = dict(added_tokens_decoder=added, extra_special_tokens=special)
    save_vocabulary(tmp_path, *models, ids, **settings)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(dict(model_type="marian", **SMALL, vocab_size=len(ids))))
    config = hf_marian.read_config(file)
    model, tokenizer_config = (
        hf_marian.model_config(file, config),
        read_tokenizer_config(tmp_path, {}),
    )
    vocabulary, orders = hf_marian.read_vocabulary(tmp_path, model, config, tokenizer_config)
    reference, rng = MarianTokenizer.from_pretrained(tmp_path), random.Random(2)
    text = []
    for line in mixed_lines()[:3000]:
        position = rng.randint(0, len(line))
        text.append(
            line[:position] + rng.choice([*plain, *special, " <new> ", " ich "]) + line[position:]
        )
    rows = vocabulary.source.encode(text)
    expected = reference(text).input_ids
    actual = [orders[0][[*row, EOS]].tolist() for row in rows]
    compared = zip(text, actual, expected, strict=True)
    differences = [line for line, row, expected_row in compared if row != expected_row]
    assert not differences, differences[:3]
    texts = reference.batch_decode(
        [orders[1][row].tolist() for row in rows], skip_special_tokens=True
    )
    assert vocabulary.target.decode(rows) == [line.replace("\n", " ") for line in texts]
    assert any("<new>" in line for line in texts) and not any("<gone>" in line for line in texts)
