"""Subword tokenizers: lossless, deterministic, special ids first, one-line errors."""

import io
import pickle
import re

import numpy as np
import pytest
import sentencepiece
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.batch import BOS, EOS, PAD, UNK
from data.errors import DataError
from data.pairs import ParallelText
from data.tokenizer import Tokenizer, evenly_spaced
from data.vocabulary import Vocabulary, load_tokenizer

_NOUNS = ["teacher", "student", "book", "door", "house", "window", "garden", "bridge", "letter"]
_NOMEN = ["Lehrer", "Schüler", "Mann", "Hund", "Vogel", "Garten", "Brief", "Bäcker", "Zug"]
_VERBS = ["sees", "opens", "finds", "loves", "carries", "breaks", "remembers", "paints"]
_VERBEN = ["sieht", "öffnet", "findet", "liebt", "trägt", "zerbricht", "kennt", "malt"]
ENGLISH = [f"The {n} {v} 47 old {m}s , but not the cat ." for n in _NOUNS for v in _VERBS
           for m in _NOUNS[::2]]  # fmt: skip
GERMAN = [f"Der {n} {v} 47 alte Häuser , aber nicht den {m} ." for n in _NOMEN for v in _VERBEN
          for m in _NOMEN[::2]]  # fmt: skip


@pytest.fixture(scope="module", params=["bpe", "unigram"])
def tokenizer(request):
    return Tokenizer.train(ENGLISH + GERMAN, 330, request.param)


LINES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n"))


@settings(deadline=None, max_examples=200)
@given(LINES | st.text("\u2581\ue000ue \t<s>", max_size=12))
@example("\u2581")
@example("\ue000u\u2581\ue000e\ue000\ue000")
@example("  two  spaces  ")
@example("<s> <pad> </s> <unk> <0x41> \u2047")
@example("\x00\x01\x1f\r\x0b\x85\u2028\u2585")
@example("\ufeffe\u0301 \u00e9 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u3000\xa0")
def test_any_line_round_trips(tokenizer, line):
    (ids,) = tokenizer.encode([line])
    assert tokenizer.decode([ids]) == [line]
    assert not set(ids) & {PAD, BOS, EOS, UNK}
    assert all(UNK < i < tokenizer.vocab_size for i in ids)


@settings(deadline=None)
@given(st.lists(st.integers(0, 329)))
def test_any_ids_decode_to_one_line_without_special_tokens(tokenizer, ids):
    (text,) = tokenizer.decode([ids])
    assert "\n" not in text
    assert [text] == tokenizer.decode([[i for i in ids if i not in (PAD, BOS, EOS, UNK)]])
    assert len(tokenizer.pieces(ids)) == len(ids)


def test_the_vocabulary_has_the_requested_size(tokenizer):
    assert tokenizer.vocab_size == 330
    (ids,) = tokenizer.encode([ENGLISH[0]])
    assert len(ids) * 3 < len(ENGLISH[0]) * 2
    assert tokenizer.pieces([PAD, BOS, EOS, UNK]) == ["<pad>", "<s>", "</s>", "<unk>"]
    assert "".join(tokenizer.pieces(ids)) == "\u2581" + ENGLISH[0].replace(" ", "\u2581")


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_training_is_deterministic(kind):
    def train(text):
        return Tokenizer.train(iter(text), 330, kind)

    first, repeated = train(ENGLISH + GERMAN), train(ENGLISH + GERMAN)
    assert first.to_bytes() == repeated.to_bytes()
    assert first.digest() == repeated.digest()
    assert first.digest() != train(ENGLISH + GERMAN[:200]).digest()


def test_saving_and_pickling_preserve_a_tokenizer(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "a.model")
    assert [file.name for file in tmp_path.iterdir()] == ["a.model"]
    for copy in (load_tokenizer(tmp_path / "a.model"), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.digest() == tokenizer.digest()
        assert copy.encode(GERMAN[:9]) == tokenizer.encode(GERMAN[:9])


@given(st.integers(0, 300), st.integers(1, 50))
def test_a_sample_is_evenly_spaced_and_bounded(count, limit):
    sample = evenly_spaced(iter(range(count)), limit)
    assert len(sample) <= limit
    assert len(sample) > limit // 2 - 1 or count <= limit
    step = sample[1] - sample[0] if len(sample) > 1 else max(count, 1)
    assert len(sample) < 2 or sample == list(range(0, count, step))
    assert count > limit or sample == list(range(count))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize(("requested_size", "side"), [(10**6, "most"), (20, "least")])
def test_an_unsupported_size_error_names_the_nearest_supported_one(kind, requested_size, side):
    with pytest.raises(DataError) as error:
        Tokenizer.train(ENGLISH, requested_size, kind)
    message = str(error.value)
    assert message.startswith(f"--config.data.vocab_size={requested_size} ") and "\n" not in message
    size = int(re.search(rf"at {side} --config\.data\.vocab_size=(\d+)", message)[1])
    assert Tokenizer.train(ENGLISH, size, kind).vocab_size == size
    with pytest.raises(DataError):
        Tokenizer.train(ENGLISH, size + (1 if side == "most" else -1), kind)


@pytest.mark.parametrize("text", [[], ["", ""]])
def test_training_without_text_is_rejected(text):
    with pytest.raises(DataError, match="there is no text to train a vocabulary on"):
        Tokenizer.train(text, 300)


def test_an_unknown_kind_is_rejected():
    with pytest.raises(DataError, match="'word' is not one of: bpe, unigram"):
        Tokenizer.train(ENGLISH, 300, "word")


def test_a_missing_or_corrupt_model_is_rejected(tmp_path):
    with pytest.raises(DataError, match="no.model is missing"):
        load_tokenizer(tmp_path / "no.model")
    for content in (b"", b"junk" * 99):
        (tmp_path / "bad.model").write_bytes(content)
        with pytest.raises(DataError, match="bad.model: not a SentencePiece model"):
            load_tokenizer(tmp_path / "bad.model")


@pytest.mark.parametrize(
    "ids",
    [
        dict(pad_id=-1, bos_id=-1, eos_id=0, unk_id=1),  # Marian
        dict(pad_id=0, bos_id=-1, eos_id=1, unk_id=2),  # T5
        dict(pad_id=3, bos_id=2, eos_id=1, unk_id=0),
    ],
)
def test_a_pretrained_model_gets_heeds_special_ids(ids, tmp_path):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(ENGLISH),
        model_writer=model,
        vocab_size=60,
        model_type="bpe",
        minloglevel=3,
        **ids,
    )
    (tmp_path / "other.spm").write_bytes(model.getvalue())
    sentencepiece_model = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    loaded = load_tokenizer(tmp_path / "other.spm")
    assert loaded.vocab_size == 60 + sum(i < 0 for i in ids.values())
    assert loaded.model_ids[:4].tolist() == [ids[f"{n}_id"] for n in ("pad", "bos", "eos", "unk")]
    model_ids = [i for i in loaded.model_ids.tolist() if i >= 0]
    assert sorted(model_ids) == list(range(60))
    for line in ENGLISH[::40]:
        (encoded,) = loaded.encode([line])
        assert min(encoded) > UNK
        assert np.array(loaded.model_ids)[encoded].tolist() == sentencepiece_model.encode(line)
        assert loaded.decode([[BOS, *encoded, EOS, PAD]]) == [line]
    assert UNK in loaded.encode(["\u732b"])[0]
    assert pickle.loads(pickle.dumps(loaded)).encode(ENGLISH[:1]) == loaded.encode(ENGLISH[:1])


@pytest.mark.parametrize("shared", [True, False])
def test_a_vocabulary_is_saved_in_a_folder(shared, tmp_path):
    pairs = ParallelText(ENGLISH, GERMAN)
    Vocabulary.train(pairs, 300, shared=not shared).save(tmp_path)  # will be replaced
    vocabulary = Vocabulary.train(pairs, 320, shared=shared)
    assert vocabulary.shared == shared
    vocabulary.save(tmp_path)
    names = ["tokenizer.model"] if shared else ["tokenizer.source.model", "tokenizer.target.model"]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    loaded = Vocabulary.load(tmp_path)
    assert loaded.shared == shared == pickle.loads(pickle.dumps(vocabulary)).shared
    assert loaded.digest() == vocabulary.digest()
    assert Vocabulary.load(tmp_path / names[0]).source.digest() == vocabulary.source.digest()


def test_separate_vocabularies_fit_their_own_language():
    vocabulary = Vocabulary.train(ParallelText(ENGLISH, GERMAN), 320, shared=False)

    def num_tokens(*lines):
        return [len(side.encode([line])[0]) for side, line in zip(vocabulary, lines, strict=True)]

    own_language, other_language = (
        num_tokens(ENGLISH[0], GERMAN[0]),
        num_tokens(GERMAN[0], ENGLISH[0]),
    )
    assert sum(own_language) * 3 < sum(other_language) * 2


def test_a_vocabulary_is_trained_on_at_most_max_sentences():
    indices = []

    class RecordingText(ParallelText):
        def __getitem__(self, index):
            indices.append(index)
            return super().__getitem__(index)

    Vocabulary.train(RecordingText(ENGLISH, GERMAN), 300, max_sentences=200)
    assert indices == [i * 360 // 100 for i in range(100)]


def test_a_folder_without_a_vocabulary_is_rejected(tmp_path):
    with pytest.raises(DataError, match="tokenizer.model: vocabulary not found"):
        Vocabulary.load(tmp_path)


def test_long_lines_are_used_in_training():
    line = "wort " * 2000
    assert (
        Tokenizer.train([line] * 5, 270).encode(["wort"])[0]
        != Tokenizer.train(["x"] * 5, 262).encode(["wort"])[0]
    )
