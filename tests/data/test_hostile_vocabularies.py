"""Vocabularies of others that panic, and a run's own vocabulary files once they are corrupt."""

import json

import pytest
import tokenizers

from data.errors import DataError
from data.hf_tokenizer import FastTokenizer
from data.marian_tokenizer import MarianTokenizer, MarianVocab
from tests.experiments import bart_folders, t5_folders


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """The tokenizer.json of an NLLB folder."""
    folder = tmp_path_factory.mktemp("nllb") / "model"
    bart_folders.save_folder(folder, "m2m_100")
    return json.loads((folder / "tokenizer.json").read_text())


def endless(found, **parts):
    """A tokenizer with a regular expression that never ends on many "a" without a "b"."""
    ids = {
        **found["model"]["vocab"],
        **{each["content"]: each["id"] for each in found["added_tokens"]},
    }
    order = [ids["<pad>"], ids["</s>"], ids["</s>"], ids["<unk>"]]
    order += [id for id in sorted(ids.values()) if id not in order]
    return FastTokenizer.make(json.dumps(found | parts), order, [])


REGEX = {"Regex": r"(?=(a+)+b)(a+)+b"}


def test_a_text_that_a_vocabulary_cannot_cut_is_one_line(tokenizer):
    """The library panics where a regular expression goes on for too long."""
    split = {"type": "Split", "pattern": REGEX, "behavior": "Isolated", "invert": False}
    side = endless(tokenizer, pre_tokenizer=split)
    assert side.encode(["b a b"])
    with pytest.raises(DataError, match="^the vocabulary cannot cut this text: "):
        side.encode(["a" * 60])


def test_pieces_that_a_vocabulary_cannot_join_are_one_line(tokenizer):
    decoder = {"type": "Sequence", "decoders": [{"type": "Fuse"}]}
    decoder["decoders"].append({"type": "Replace", "pattern": REGEX, "content": "c"})
    side = endless(tokenizer, decoder=decoder)
    (letter,) = (id for id in range(4, side.vocab_size) if side.pieces([id]) == ["a"])
    with pytest.raises(DataError, match="^the vocabulary cannot join these pieces: "):
        side.decode([[letter] * 60])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(order=[1, "2", 3, 4]), r"order\[1\]: expected int"),
        (dict(order=[1]), "order: expected array of length >= 4"),
        (dict(order=[2**40] * 9), r"order\[0\]: expected int <="),
        (dict(prefix=[99]), "a text begins with none of its words"),
        (dict(tokenizer="{}"), "not a tokenizer"),
        (dict(format="other"), "not a vocabulary of Heed's"),
    ],
)
def test_a_damaged_vocabulary_of_a_run_is_one_line(change, message):
    library = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({c: i for i, c in enumerate("pbeu")})
    )
    whole = FastTokenizer.make(library.to_str(), [0, 1, 2, 3], [2])
    with pytest.raises(DataError, match=message):
        FastTokenizer(json.dumps(json.loads(whole.to_bytes()) | change).encode())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(special=["never"]), "a special word is none of its words"),
        (dict(spare=5), "not a vocabulary"),
        (dict(cuts="%"), "cuts: invalid base64"),
        (dict(joins="AAAA"), "not a SentencePiece model"),
        (dict(other=1), "object contains unknown field other"),
    ],
)
def test_a_damaged_table_of_a_run_is_one_line(change, message):
    cuts = t5_folders.spiece()
    whole = MarianTokenizer.make(cuts, cuts, MarianVocab(("a",)))
    with pytest.raises(DataError, match=message):
        MarianTokenizer(json.dumps(json.loads(whole.to_bytes()) | change).encode())
