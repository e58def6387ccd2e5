"""Subwords: lossless, the same from the same text, special ids first, mistakes told in a line."""

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
def test_any_line_comes_back_as_it_was(tokenizer, line):
    (ids,) = tokenizer.encode([line])
    assert tokenizer.decode([ids]) == [line]
    assert not set(ids) & {PAD, BOS, EOS, UNK}
    assert all(UNK < i < tokenizer.vocab_size for i in ids)


@settings(deadline=None)
@given(st.lists(st.integers(0, 329)))
def test_any_ids_decode_to_one_line_without_the_special_ones(tokenizer, ids):
    (text,) = tokenizer.decode([ids])
    assert "\n" not in text
    assert [text] == tokenizer.decode([[i for i in ids if i not in (PAD, BOS, EOS, UNK)]])
    assert len(tokenizer.pieces(ids)) == len(ids)


def test_the_size_is_the_one_asked_for_and_common_words_are_few_pieces(tokenizer):
    assert tokenizer.vocab_size == 330
    (ids,) = tokenizer.encode([ENGLISH[0]])
    assert len(ids) * 3 < len(ENGLISH[0]) * 2
    assert tokenizer.pieces([PAD, BOS, EOS, UNK]) == ["<pad>", "<s>", "</s>", "<unk>"]
    assert "".join(tokenizer.pieces(ids)) == "\u2581" + ENGLISH[0].replace(" ", "\u2581")


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_the_same_text_gives_the_same_model_and_other_text_another(kind):
    def learn(text):
        return Tokenizer.train(iter(text), 330, kind)

    first, again = learn(ENGLISH + GERMAN), learn(ENGLISH + GERMAN)
    assert first.to_bytes() == again.to_bytes()
    assert first.digest() == again.digest()
    assert first.digest() != learn(ENGLISH + GERMAN[:200]).digest()


def test_saving_pickling_and_loading_change_nothing(tokenizer, tmp_path):
    tokenizer.save(tmp_path / "a.model")
    assert [file.name for file in tmp_path.iterdir()] == ["a.model"]
    for copy in (load_tokenizer(tmp_path / "a.model"), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.digest() == tokenizer.digest()
        assert copy.encode(GERMAN[:9]) == tokenizer.encode(GERMAN[:9])


@given(st.integers(0, 300), st.integers(1, 50))
def test_a_sample_is_evenly_spaced_and_bounded(count, limit):
    kept = evenly_spaced(iter(range(count)), limit)
    assert len(kept) <= limit
    assert len(kept) > limit // 2 - 1 or count <= limit
    step = kept[1] - kept[0] if len(kept) > 1 else max(count, 1)
    assert len(kept) < 2 or kept == list(range(0, count, step))
    assert count > limit or kept == list(range(count))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize(("asked", "side"), [(10**6, "most"), (20, "least")])
def test_a_size_the_text_does_not_support_is_told_with_the_one_it_does(kind, asked, side):
    with pytest.raises(DataError) as error:
        Tokenizer.train(ENGLISH, asked, kind)
    message = str(error.value)
    assert message.startswith(f"--config.data.vocab_size={asked} ") and "\n" not in message
    size = int(re.search(rf"at {side} --config\.data\.vocab_size=(\d+)", message)[1])
    assert Tokenizer.train(ENGLISH, size, kind).vocab_size == size
    with pytest.raises(DataError):
        Tokenizer.train(ENGLISH, size + (1 if side == "most" else -1), kind)


@pytest.mark.parametrize("text", [[], ["", ""]])
def test_no_text_is_told(text):
    with pytest.raises(DataError, match="there is no text to learn a vocabulary from"):
        Tokenizer.train(text, 300)


def test_an_unknown_kind_is_told():
    with pytest.raises(DataError, match="'word' is not known: there are bpe, unigram"):
        Tokenizer.train(ENGLISH, 300, "word")


def test_a_missing_or_broken_model_is_told(tmp_path):
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
def test_a_ready_made_model_gets_our_special_ids(ids, tmp_path):
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
    other = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ours = load_tokenizer(tmp_path / "other.spm")
    assert ours.vocab_size == 60 + sum(i < 0 for i in ids.values())
    assert ours.model_ids[:4].tolist() == [ids[f"{n}_id"] for n in ("pad", "bos", "eos", "unk")]
    own = [i for i in ours.model_ids.tolist() if i >= 0]
    assert sorted(own) == list(range(60))
    for line in ENGLISH[::40]:
        (encoded,) = ours.encode([line])
        assert min(encoded) > UNK
        assert np.array(ours.model_ids)[encoded].tolist() == other.encode(line)
        assert ours.decode([[BOS, *encoded, EOS, PAD]]) == [line]
    assert UNK in ours.encode(["\u732b"])[0]
    assert pickle.loads(pickle.dumps(ours)).encode(ENGLISH[:1]) == ours.encode(ENGLISH[:1])


@pytest.mark.parametrize("joint", [True, False])
def test_a_vocabulary_is_kept_in_a_folder(joint, tmp_path):
    pairs = ParallelText(ENGLISH, GERMAN)
    Vocabulary.train(pairs, 300, shared=not joint).save(tmp_path)  # to be replaced
    vocabulary = Vocabulary.train(pairs, 320, shared=joint)
    assert vocabulary.shared == joint
    vocabulary.save(tmp_path)
    names = ["tokenizer.model"] if joint else ["tokenizer.source.model", "tokenizer.target.model"]
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    again = Vocabulary.load(tmp_path)
    assert again.shared == joint == pickle.loads(pickle.dumps(vocabulary)).shared
    assert again.digest() == vocabulary.digest()
    assert Vocabulary.load(tmp_path / names[0]).source.digest() == vocabulary.source.digest()


def test_separate_sides_know_only_their_own_words():
    vocabulary = Vocabulary.train(ParallelText(ENGLISH, GERMAN), 320, shared=False)

    def pieces(*lines):
        return [len(side.encode([line])[0]) for side, line in zip(vocabulary, lines, strict=True)]

    own, other = pieces(ENGLISH[0], GERMAN[0]), pieces(GERMAN[0], ENGLISH[0])
    assert sum(own) * 3 < sum(other) * 2


def test_a_vocabulary_is_learned_from_a_bounded_part_of_the_pairs():
    seen = []

    class Counting(ParallelText):
        def __getitem__(self, index):
            seen.append(index)
            return super().__getitem__(index)

    Vocabulary.train(Counting(ENGLISH, GERMAN), 300, max_sentences=200)
    assert seen == [i * 360 // 100 for i in range(100)]


def test_a_folder_without_a_vocabulary_is_told(tmp_path):
    with pytest.raises(DataError, match="tokenizer.model: no vocabulary there"):
        Vocabulary.load(tmp_path)


def test_long_lines_are_learned_from():
    line = "wort " * 2000
    assert (
        Tokenizer.train([line] * 5, 270).encode(["wort"])[0]
        != Tokenizer.train(["x"] * 5, 262).encode(["wort"])[0]
    )
