"""Imported fairseq checkpoints: same logits and outputs as the plain NumPy model."""

import json
import shutil
from argparse import Namespace
from collections import OrderedDict

import jax.numpy as jnp
import numpy as np
import pytest

from data.batch import BOS, EOS, shift_right
from decode.options import SearchOptions
from decode.translate import Translator
from interop.fairseq.model import read_fairseq
from interop.torch_archive import read_arrays, read_content
from model import Transformer
from tests.experiments.commands import heed
from tests.experiments.fairseq_folders import (
    SETTINGS,
    Global,
    ReferenceModel,
    Tensor,
    content,
    random_arrays,
    save_checkpoint,
    save_folder,
    words,
)

PRE = {"encoder_normalize_before": True, "decoder_normalize_before": True}
KINDS = {
    "post": {},
    "pre": PRE | {"activation_fn": "gelu", "encoder_attention_heads": 4}
    | {"decoder_attention_heads": 4},
    "shared": {"share_all_embeddings": True, "no_scale_embedding": True},
    "untied": PRE | {"share_decoder_input_output_embed": False, "activation_fn": "swish"}
    | {"encoder_layers": 1, "decoder_layers": 3},
    "learned": {"encoder_learned_pos": True, "decoder_learned_pos": True},
}  # fmt: skip
TEXTS = ["one cat", "cats do one", "a", "done on", "xyz x", "bone", "q r s one two"]


def heed_ids(ids):
    """fairseq's ids (<s>, <pad>, </s>, <unk>, then the dictionary) as Heed's ids."""
    return [[4, 0, 2, 3][id] if id < 4 else id + 1 for id in ids]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_logits_and_outputs_equal_the_plain_model(kind, tmp_path):
    settings, arrays = save_folder(tmp_path / "m", KINDS[kind])
    imported = read_fairseq(tmp_path / "m")
    reference, model = ReferenceModel(arrays, settings), Transformer(imported.experiment.model)
    source, target = (words(settings, side) for side in ("source", "target"))
    rng = np.random.default_rng(0)
    for length in 1, 4, 9:
        src = [*rng.integers(4, len(source), length - 1).tolist(), 2]
        tgt = [*rng.integers(4, len(target), 5).tolist(), 0]
        logits = model.apply(
            {"params": imported.params},
            jnp.array([heed_ids(src)], jnp.int32),
            shift_right(jnp.array([heed_ids(tgt)], jnp.int32)),
        )[0]
        expected = reference.logits(reference.encode(src), tgt[:-1])
        np.testing.assert_allclose(logits[:, heed_ids(range(len(target)))], expected, atol=1e-4)
        assert (logits[:, BOS] < -90).all()  # masked ids
    search = vars(imported.experiment.search) | {"beam_size": 1, "max_length": 20}
    translator = Translator(
        model, imported.params, imported.vocabulary, options=SearchOptions(**search)
    )
    sources = [[*id, EOS] for id in imported.vocabulary.source.encode(TEXTS)]
    fairseq_ids = {id: n for n, id in enumerate(heed_ids(range(len(source))))}
    outputs = [reference.greedy([fairseq_ids[id] for id in ids], 20) for ids in sources]
    assert len(set(map(tuple, outputs))) > 2  # guards against a vacuous test
    for text, output, (best, *_) in zip(TEXTS, outputs, translator.hypotheses(TEXTS), strict=True):
        assert list(best.tokens) == heed_ids(output), text
        output_text = " ".join(target[id] for id in output if id not in (0, 2))
        assert best.text == (output_text + " ").replace("@@ ", "").rstrip()


def test_ids_follow_the_dictionaries(tmp_path):
    settings, _ = save_folder(tmp_path / "m")
    source, target = read_fairseq(tmp_path / "m").vocabulary
    dictionary = words(settings, "source")
    tokens = "one cat do@@ g z@@ e@@ b@@ r@@ a"
    assert source.encode(["one cat dog zebra"]) == [heed_ids(map(dictionary.index, tokens.split()))]
    assert target.encode(["one"]) != source.encode(["one"])
    assert source.encode(["\u2603"]) == [[3]]
    (tmp_path / "m" / "data" / "bpe.code").unlink()
    without_merges = read_fairseq(tmp_path / "m").vocabulary.source
    assert without_merges.encode([tokens]) == source.encode(["one cat dog zebra"])


def trees(settings):
    """The same settings in the formats of all fairseq versions."""
    current = content(settings, {})
    yield current
    yield {"args": Namespace(**settings), "cfg": None}
    sides = {"encoder": {}, "decoder": {}}
    flat = {}
    for name, value in settings.items():
        side, _, field = name.partition("_")
        if side in sides:
            sides[side][field] = value
        elif name not in ("arch", "task", "source_lang", "target_lang", "bpe"):
            flat[name] = value
    model = flat | sides | {"_name": "transformer"}
    task = {"_name": "translation", "source_lang": "en", "target_lang": "de"}
    other_fields = {"task": task, "generation": current["cfg"]["generation"]}
    yield {"args": None, "cfg": other_fields | {"model": model, "bpe": {"_name": "subword_nmt"}}}


def test_settings_of_all_versions_are_read(tmp_path):
    settings, arrays = save_folder(tmp_path / "m")
    file = tmp_path / "m" / "checkpoints" / "checkpoint_best.pt"
    expected = read_fairseq(tmp_path / "m").experiment
    weights = content(settings, arrays)["model"]
    for tree in trees(settings):
        save_checkpoint(file, tree | {"model": weights})
        assert read_fairseq(tmp_path / "m").experiment == expected
    assert (expected.model.dropout, expected.model.mlp_dropout) == (0.3, 0.2)
    assert expected.data.target_language == "de"


def test_omegaconf_settings_are_read_without_omegaconf(tmp_path):
    """OmegaConf's containers have `_content`, and their values `_val`."""

    class Config:
        def __init__(self, name, **state):
            self.name, self.state = name, state

        def __reduce__(self):
            return Global(f"omegaconf.{self.name}"), (), self.state

    def wrapped(value):
        if isinstance(value, dict):
            items = {name: wrapped(item) for name, item in value.items()}
            return Config("dictconfig.DictConfig", _content=items, _parent=None)
        return Config("nodes.AnyNode", _val=value, _metadata=Config("base.Metadata"))

    settings, arrays = save_folder(tmp_path / "m")
    expected = read_fairseq(tmp_path / "m").experiment
    checkpoint = content(settings, arrays)
    checkpoint["cfg"]["model"] = vars(checkpoint["cfg"]["model"])
    checkpoint["cfg"] = wrapped(checkpoint["cfg"])
    save_checkpoint(tmp_path / "m" / "checkpoints" / "checkpoint_best.pt", checkpoint)
    assert read_fairseq(tmp_path / "m").experiment == expected


def test_search_settings_come_from_the_checkpoint(tmp_path):
    save_folder(tmp_path / "m")
    search = read_fairseq(tmp_path / "m").experiment.search
    assert (search.beam_size, search.penalty, search.alpha) == (5, "average", 1.0)
    assert (search.min_length, search.max_length) == (2, 64)  # the number of positions
    settings = {"beam": 3, "lenpen": 0.5, "max_len_b": 20, "min_len": 2, "no_repeat_ngram_size": 3}
    save_folder(tmp_path / "m", generation=settings | {"unkpen": 0.0})
    search = read_fairseq(tmp_path / "m").experiment.search
    assert (search.beam_size, search.alpha, search.no_repeat_ngrams) == (3, 0.5, 3)
    assert (search.min_length, search.max_length, search.max_length_offset) == (3, 21, 21)
    assert search.allow_unknown and search.stopping == "full"
    save_folder(tmp_path / "m", generation={"unnormalized": True})
    assert read_fairseq(tmp_path / "m").experiment.search.penalty == "none"


def test_languages_come_from_the_data_path_or_the_arguments(tmp_path):
    no_languages = {"source_lang": None, "target_lang": None}
    settings, arrays = save_folder(tmp_path / "m")
    file = tmp_path / "m" / "checkpoints" / "checkpoint_best.pt"
    for data, languages in ("data-bin/iwslt.tokenized.en-de", ("", "")), ("x", ("en", "de")):
        save_checkpoint(file, content(settings | no_languages | {"data": data}, arrays))
        data_config = read_fairseq(tmp_path / "m", *languages).experiment.data
        assert (data_config.source_language, data_config.target_language) == ("en", "de")


def test_the_best_or_the_named_checkpoint_is_read(tmp_path):
    settings, _ = save_folder(tmp_path / "m")
    best = tmp_path / "m" / "checkpoints" / "checkpoint_best.pt"
    last = best.with_name("checkpoint_last.pt")
    save_checkpoint(last, content(settings, random_arrays(settings, 1)))
    all_params = [read_fairseq(path).params for path in (tmp_path / "m", best, last)]
    tables = [np.asarray(params["target_embedding"]["table"]) for params in all_params]
    assert (tables[0] == tables[1]).all() and (tables[1] != tables[2]).any()
    flat = tmp_path / "flat"  # all files in one folder
    shutil.copytree(tmp_path / "m" / "data", flat)
    shutil.copy(last, flat / "model.pt")
    np.testing.assert_array_equal(read_fairseq(flat).params["target_embedding"]["table"], tables[2])


def test_tensors_of_all_kinds_are_read(tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(3, 4)).astype(np.float32)
    numbers = np.arange(24, dtype=np.float32)
    half = (x.view(np.uint32) >> 16).astype(np.uint16)  # truncated to bfloat16
    stored = {
        "plain": (Tensor(x), x),
        "transposed": (Tensor(x, layout=(0, (4, 3), (1, 4))), x.T),
        "slice": (
            Tensor(numbers, layout=(5, (2, 3), (8, 2))),
            numbers[5:][[[0, 2, 4], [8, 10, 12]]],
        ),
        "double": (Tensor(x.astype(np.float64), "DoubleStorage"), x),
        "half": (Tensor(x.astype(np.float16), "HalfStorage"), x.astype(np.float16)),
        "brain": (Tensor(half, "BFloat16Storage"), (half.astype(np.uint32) << 16).view(np.float32)),
        "number": (Tensor(numbers[:1], layout=(0, (), ())), numbers[0]),
        "none": (Tensor(numbers[:0]), numbers[:0]),
    }
    file = tmp_path / "x.pt"
    tensors = OrderedDict((name, tensor) for name, (tensor, _) in stored.items())
    save_checkpoint(file, {"model": tensors | {"ids": Tensor(np.arange(3), "LongStorage")}})
    arrays = read_arrays(file, read_content(file)["model"])
    assert arrays.keys() == stored.keys()  # integers are not weights
    for name, (_, expected) in stored.items():
        assert arrays[name].dtype == np.float32 and arrays[name].shape == expected.shape
        np.testing.assert_array_equal(arrays[name], expected.astype(np.float32))


@pytest.mark.slow
def test_the_command_writes_a_run_that_other_commands_accept(tmp_path):
    save_folder(tmp_path / "m", PRE, {"beam": 2, "max_len_b": 20})
    workdir = tmp_path / "run"
    code, out, err = heed("import_model", f"--from={tmp_path / 'm'}", f"--workdir={workdir}")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["search"]["beam_size"] == 2
    assert summary["source_vocabulary"] == len(words(SETTINGS, "source")) + 1
    code, out, err = heed("translate", f"--workdir={workdir}", stdin="one cat\ntwo\n")
    assert code == 0 and out.count("\n") == 2, err
    code, _, err = heed("export_model", f"--workdir={workdir}", "--to=huggingface",
                        f"--output={tmp_path / 'out'}")  # fmt: skip
    assert code == 1 and "model.norm=pre has no counterpart" in err
