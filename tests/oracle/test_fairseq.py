"""Two real fairseq models of the package detransliterator, and its test data.

They transliterate Manding languages from Latin script to N'Ko. Only the package's data files are
used: its code requires fairseq, which no longer installs.
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
from interop.locate import locate_folder
from interop.torch_archive import read_arrays, read_content
from model import Transformer
from tests.experiments.commands import heed

ASSETS = "package:detransliterator/assets"
MODELS = "latin2nqo_001.35", "latin2nqo_001.38"
LINES = 256
LENGTHS = range(20, 32)  # one shape: compilation dominates the cost


def lines(kind: str) -> list[str]:
    text = (
        (locate_folder(ASSETS) / "test_data" / f"diane_parallel_002.{kind}").read_bytes().decode()
    )
    return [line.strip() for line in text.replace("\r\n", "\n").split("\n")]


@pytest.mark.parametrize("model", MODELS)
def test_real_text_is_transliterated_accurately(model):
    imported = read_fairseq(locate_folder(f"{ASSETS}/{model}"))
    # The package lowercases its sources. This text has tones, which need not be guessed.
    sources = [line.lower() for line in lines("bam-g-tonal")]
    sizes = map(len, imported.vocabulary.source.encode(sources))
    examples = zip(sources, lines("nqo"), sizes, strict=True)
    selected = [(s, t) for s, t, size in examples if s and t and size in LENGTHS]
    selected = selected[:: len(selected) // LINES][:LINES]
    search = vars(imported.experiment.search) | {"beam_size": 1, "max_length": 48}
    translator = Translator(
        Transformer(imported.experiment.model),
        imported.params,
        imported.vocabulary,
        options=SearchOptions(**search),
    )
    outputs = translator.translate([s for s, _ in selected])
    assert len(outputs) == LINES
    assert sacrebleu.corpus_chrf(outputs, [[t for _, t in selected]]).score >= 94


def test_commands_reproduce_the_packages_example(tmp_path):
    workdir = tmp_path / "nqo"
    code, _, err = heed("import_model", f"--from={ASSETS}/{MODELS[0]}", f"--workdir={workdir}")
    assert code == 0, err
    code, out, err = heed("translate", f"--workdir={workdir}", stdin="musa dunbuya\n")
    assert (code, out) == (0, "ߡߎߛߊ߫ ߘߎ߲ߓߎߦߊ\n"), err


@pytest.mark.parametrize("model", MODELS)
def test_weights_equal_those_read_by_pytorch(model):
    file = locate_folder(f"{ASSETS}/{model}") / "checkpoints" / "checkpoint_best.pt"
    array = [np._core.multiarray._reconstruct, np.ndarray, np.dtype, np.dtypes.Float64DType]
    array.append(np.dtypes.Int64DType)
    names = ("numpy.core.multiarray._reconstruct", "_codecs.encode")
    safe_names = zip((array[0], codecs.encode), names, strict=True)
    with torch.serialization.safe_globals([Namespace, *safe_names, *array]):
        expected = torch.load(file, map_location="cpu", weights_only=True)
    content = read_content(file)
    assert dict(content["cfg"]["model"]) == vars(expected["cfg"]["model"])
    arrays = read_arrays(file, content["model"])
    assert list(arrays) == list(expected["model"])
    for name, tensor in expected["model"].items():
        np.testing.assert_array_equal(arrays[name].view("u4"), tensor.numpy().view("u4"))


def test_all_kinds_of_pytorch_tensors_are_read(tmp_path):
    x = torch.randn(3, 4)
    tensors = {
        **{str(kind): x.to(kind) for kind in (torch.float16, torch.bfloat16, torch.float64)},
        "transposed": x.T,
        "slice": x[1:, ::2],
        "parameter": torch.nn.Parameter(x),
        "number": x.sum(),
    }
    file = tmp_path / "x.pt"
    torch.save({"model": tensors, "args": Namespace(a=1)}, file)
    content = read_content(file)
    arrays = read_arrays(file, content["model"])
    assert content["args"] == {"a": 1} and arrays.keys() == tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(arrays[name], tensor.detach().float().numpy())


@pytest.mark.parametrize("kind", ["bam-g-tonal", "nqo"])
def test_ids_equal_those_of_subword_nmt_and_the_dictionary(kind):
    folder = locate_folder(f"{ASSETS}/{MODELS[0]}") / "data"
    vocabulary = read_fairseq(folder.parent).vocabulary
    side, name = (1, "nqo") if kind == "nqo" else (0, "roman")
    merges = BPE(io.StringIO((folder / "bpe.code").read_text()))
    entries = (folder / f"dict.{name}.txt").read_text().splitlines()
    # fairseq ids: four special tokens, of which UNK is 3, then the lines.
    ids = {line.split(" ")[0]: number for number, line in enumerate(entries, 4)}
    texts = [text.lower() for text in lines(kind)]
    encoded = vocabulary[side].encode(texts)
    for text, row in zip(texts, encoded, strict=True):
        expected = [ids.get(word, UNK) for word in merges.process_line(text).split()]
        assert row == [id + 1 if id > UNK else id for id in expected]
    decoded = vocabulary[side].decode(encoded)
    matches = [a == " ".join(b.split()) for a, b in zip(decoded, texts, strict=True)]
    assert sum(matches) > 0.9 * len(matches)  # except for unknown letters


def test_the_position_offset_of_fairseq_predicts_best():
    """Teacher-forced accuracy depends on the position offset; whole outputs hardly do."""
    imported = read_fairseq(locate_folder(f"{ASSETS}/{MODELS[0]}"))
    texts = [line.lower() for line in lines("bam-g-tonal")][::25], lines("nqo")[::25]
    sides = [side.encode(text) for side, text in zip(imported.vocabulary, texts, strict=True)]
    pairs = [pair for pair in zip(*sides, strict=True) if all(2 <= len(ids) < 64 for ids in pair)]
    src, tgt = (np.array([[*ids, EOS] + [PAD] * (63 - len(ids)) for ids in side])
                for side in zip(*pairs, strict=True))  # fmt: skip
    accuracy = []
    for offset in 0, 1, 2:
        model = Transformer(replace(imported.experiment.model, position_offset=offset))
        logits = jax.jit(model.apply)({"params": imported.params}, src, shift_right(tgt))
        accuracy.append((np.asarray(logits).argmax(-1) == tgt)[tgt != PAD].mean())
    assert np.argmax(accuracy) == 2 and accuracy[2] > 0.92, accuracy
