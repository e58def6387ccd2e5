"""Two real models of fairseq's, those of the package detransliterator, and the text beside them.

They write Latin script of Manding languages in N'Ko. Nothing but the package's files is used: its
code needs fairseq, which installs no more.
"""

import codecs
import io
from argparse import Namespace
from dataclasses import replace

import jax
import numpy as np
import pytest
import sacrebleu
import torch
from subword_nmt.apply_bpe import BPE

from data.batch import EOS, PAD, UNK, shift_right
from decode.options import SearchOptions
from decode.translate import Translator
from interop.fairseq.model import read_fairseq
from interop.locate import folder_of
from interop.torch_archive import read_arrays, read_content
from model import Transformer
from tests.experiments.commands import heed

ASSETS = "package:detransliterator/assets"
MODELS = "latin2nqo_001.35", "latin2nqo_001.38"
LINES = 256
LENGTHS = range(20, 32)  # of the same shape for the search: what is compiled is what this costs


def lines(kind: str) -> list[str]:
    text = (folder_of(ASSETS) / "test_data" / f"diane_parallel_002.{kind}").read_bytes().decode()
    return [line.strip() for line in text.replace("\r\n", "\n").split("\n")]


@pytest.mark.parametrize("model", MODELS)
def test_real_text_is_written_as_it_should(model):
    imported = read_fairseq(folder_of(f"{ASSETS}/{model}"))
    # The package writes its sources in small letters. Without tones, which this text has, they
    # would have to be guessed.
    sources = [line.lower() for line in lines("bam-g-tonal")]
    sizes = map(len, imported.vocabulary.source.encode(sources))
    every = zip(sources, lines("nqo"), sizes, strict=True)
    chosen = [(s, t) for s, t, size in every if s and t and size in LENGTHS]
    chosen = chosen[:: len(chosen) // LINES][:LINES]
    search = vars(imported.experiment.search) | {"beam_size": 1, "max_length": 48}
    translator = Translator(
        Transformer(imported.experiment.model),
        imported.params,
        imported.vocabulary,
        options=SearchOptions(**search),
    )
    found = translator.translate([s for s, _ in chosen])
    assert len(found) == LINES
    assert sacrebleu.corpus_chrf(found, [[t for _, t in chosen]]).score >= 94


def test_two_commands_write_what_the_packages_page_says(tmp_path):
    workdir = tmp_path / "nqo"
    code, _, err = heed("import_model", f"--from={ASSETS}/{MODELS[0]}", f"--workdir={workdir}")
    assert code == 0, err
    code, out, err = heed("translate", f"--workdir={workdir}", stdin="musa dunbuya\n")
    assert (code, out) == (0, "ߡߎߛߊ߫ ߘߎ߲ߓߎߦߊ\n"), err


@pytest.mark.parametrize("model", MODELS)
def test_weights_are_those_that_pytorch_reads(model):
    file = folder_of(f"{ASSETS}/{model}") / "checkpoints" / "checkpoint_best.pt"
    array = [np._core.multiarray._reconstruct, np.ndarray, np.dtype, np.dtypes.Float64DType]
    array.append(np.dtypes.Int64DType)
    named = ("numpy.core.multiarray._reconstruct", "_codecs.encode")
    known = zip((array[0], codecs.encode), named, strict=True)
    with torch.serialization.safe_globals([Namespace, *known, *array]):
        expected = torch.load(file, map_location="cpu", weights_only=True)
    content = read_content(file)
    assert dict(content["cfg"]["model"]) == vars(expected["cfg"]["model"])
    found = read_arrays(file, content["model"])
    assert list(found) == list(expected["model"])
    for name, tensor in expected["model"].items():
        np.testing.assert_array_equal(found[name].view("u4"), tensor.numpy().view("u4"))


def test_what_pytorch_writes_is_read_in_all_its_kinds(tmp_path):
    x = torch.randn(3, 4)
    tensors = {
        **{str(kind): x.to(kind) for kind in (torch.float16, torch.bfloat16, torch.float64)},
        "turned": x.T,
        "part": x[1:, ::2],
        "parameter": torch.nn.Parameter(x),
        "number": x.sum(),
    }
    file = tmp_path / "x.pt"
    torch.save({"model": tensors, "args": Namespace(a=1)}, file)
    content = read_content(file)
    found = read_arrays(file, content["model"])
    assert content["args"] == {"a": 1} and found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor.detach().float().numpy())


@pytest.mark.parametrize("kind", ["bam-g-tonal", "nqo"])
def test_ids_are_those_of_subword_nmt_and_the_dictionary(kind):
    folder = folder_of(f"{ASSETS}/{MODELS[0]}") / "data"
    vocabulary = read_fairseq(folder.parent).vocabulary
    side, name = (1, "nqo") if kind == "nqo" else (0, "roman")
    merges = BPE(io.StringIO((folder / "bpe.code").read_text()))
    listed = (folder / f"dict.{name}.txt").read_text().splitlines()
    # fairseq's own ids: four special ones, of which the unknown word is 3, then the lines.
    ids = {line.split(" ")[0]: number for number, line in enumerate(listed, 4)}
    texts = [text.lower() for text in lines(kind)]
    found = vocabulary[side].encode(texts)
    for text, ours in zip(texts, found, strict=True):
        theirs = [ids.get(word, UNK) for word in merges.process_line(text).split()]
        assert ours == [id + 1 if id > UNK else id for id in theirs]
    shown = vocabulary[side].decode(found)
    same = [a == " ".join(b.split()) for a, b in zip(shown, texts, strict=True)]
    assert sum(same) > 0.9 * len(same)  # but for unknown letters


def test_most_words_are_foreseen_with_the_first_position_that_is_fairseqs():
    """Whole outputs hardly depend on it."""
    imported = read_fairseq(folder_of(f"{ASSETS}/{MODELS[0]}"))
    texts = [line.lower() for line in lines("bam-g-tonal")][::25], lines("nqo")[::25]
    sides = [side.encode(each) for side, each in zip(imported.vocabulary, texts, strict=True)]
    kept = [pair for pair in zip(*sides, strict=True) if all(2 <= len(ids) < 64 for ids in pair)]
    src, tgt = (np.array([[*ids, EOS] + [PAD] * (63 - len(ids)) for ids in side])
                for side in zip(*kept, strict=True))  # fmt: skip
    foreseen = []
    for first in 0, 1, 2:
        model = Transformer(replace(imported.experiment.model, position_offset=first))
        logits = jax.jit(model.apply)({"params": imported.params}, src, shift_right(tgt))
        foreseen.append((np.asarray(logits).argmax(-1) == tgt)[tgt != PAD].mean())
    assert np.argmax(foreseen) == 2 and foreseen[2] > 0.92, foreseen
