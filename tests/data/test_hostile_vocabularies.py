"""Imported vocabularies that make the library panic, and corrupt vocabulary files of a run."""

import json

import pytest
import tokenizers

from data.errors import DataError
from data.hf_tokenizer import FastTokenizer
from data.marian_tokenizer import MarianTokenizer, MarianVocab
from tests.experiments import bart_folders, t5_folders


@pytest.fixture(scope="module")
def nllb_tokenizer(tmp_path_factory):
    """The tokenizer.json of an NLLB folder."""
    folder = tmp_path_factory.mktemp("nllb") / "model"
    bart_folders.save_folder(folder, "m2m_100")
    return json.loads((folder / "tokenizer.json").read_text())


def catastrophic_tokenizer(config, **parts):
    """A tokenizer with a regular expression that backtracks forever on many "a" without a "b"."""
    ids = {
        **config["model"]["vocab"],
        **{token["content"]: token["id"] for token in config["added_tokens"]},
    }
    order = [ids["<pad>"], ids["</s>"], ids["</s>"], ids["<unk>"]]
    order += [id for id in sorted(ids.values()) if id not in order]
    return FastTokenizer.make(json.dumps(config | parts), order, [])


REGEX = {"Regex": r"(?=(a+)+b)(a+)+b"}


def test_a_panic_in_encoding_is_a_one_line_error(nllb_tokenizer):
    """The library panics if a regular expression takes too long."""
    split = {"type": "Split", "pattern": REGEX, "behavior": "Isolated", "invert": False}
    side = catastrophic_tokenizer(nllb_tokenizer, pre_tokenizer=split)
    assert side.encode(["b a b"])
    with pytest.raises(DataError, match="^the vocabulary cannot tokenize this text: "):
        side.encode(["a" * 60])


def test_a_panic_in_decoding_is_a_one_line_error(nllb_tokenizer):
    decoder = {"type": "Sequence", "decoders": [{"type": "Fuse"}]}
    decoder["decoders"].append({"type": "Replace", "pattern": REGEX, "content": "c"})
    side = catastrophic_tokenizer(nllb_tokenizer, decoder=decoder)
    (letter,) = (id for id in range(4, side.vocab_size) if side.pieces([id]) == ["a"])
    with pytest.raises(DataError, match="^the vocabulary cannot decode these tokens: "):
        side.decode([[letter] * 60])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(order=[1, "2", 3, 4]), r"order\[1\]: expected int"),
        (dict(order=[1]), "order: expected array of length >= 4"),
        (dict(order=[2**40] * 9), r"order\[0\]: expected int <="),
        (dict(prefix=[99]), "a prefix id is not in it"),
        (dict(tokenizer="{}"), "not a tokenizer"),
        (dict(format="other"), "not a Heed vocabulary"),
    ],
)
def test_a_corrupt_vocabulary_file_is_a_one_line_error(change, message):
    library = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({c: i for i, c in enumerate("pbeu")})
    )
    intact = FastTokenizer.make(library.to_str(), [0, 1, 2, 3], [2])
    with pytest.raises(DataError, match=message):
        FastTokenizer(json.dumps(json.loads(intact.to_bytes()) | change).encode())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(special=["never"]), "a special word is not in it"),
        (dict(spare=5), "not a vocabulary"),
        (dict(cuts="%"), "cuts: invalid base64"),
        (dict(joins="AAAA"), "not a SentencePiece model"),
        (dict(other=1), "object contains unknown field other"),
    ],
)
def test_a_corrupt_marian_vocabulary_file_is_a_one_line_error(change, message):
    spm = t5_folders.spiece()
    intact = MarianTokenizer.make(spm, spm, MarianVocab(("a",)))
    with pytest.raises(DataError, match=message):
        MarianTokenizer(json.dumps(json.loads(intact.to_bytes()) | change).encode())
