"""fairseq's checkpoints become runs that compute and say what its equations do."""

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
    Named,
    Plain,
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


def ours(ids):
    """fairseq's ids as Heed's: <s>, <pad>, </s>, <unk>, and then the dictionary."""
    return [[4, 0, 2, 3][id] if id < 4 else id + 1 for id in ids]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_and_says_what_the_equations_do(kind, tmp_path):
    settings, arrays = save_folder(tmp_path / "m", KINDS[kind])
    imported = read_fairseq(tmp_path / "m")
    plain, model = Plain(arrays, settings), Transformer(imported.experiment.model)
    source, target = (words(settings, side) for side in ("source", "target"))
    rng = np.random.default_rng(0)
    for length in 1, 4, 9:
        src = [*rng.integers(4, len(source), length - 1).tolist(), 2]
        tgt = [*rng.integers(4, len(target), 5).tolist(), 0]
        logits = model.apply(
            {"params": imported.params},
            jnp.array([ours(src)], jnp.int32),
            shift_right(jnp.array([ours(tgt)], jnp.int32)),
        )[0]
        expected = plain.logits(plain.encode(src), tgt[:-1])
        np.testing.assert_allclose(logits[:, ours(range(len(target)))], expected, atol=1e-4)
        assert (logits[:, BOS] < -90).all()  # nothing beside what may be said
    search = vars(imported.experiment.search) | {"beam_size": 1, "max_length": 20}
    translator = Translator(
        model, imported.params, imported.vocabulary, options=SearchOptions(**search)
    )
    sources = [[*id, EOS] for id in imported.vocabulary.source.encode(TEXTS)]
    back = {id: n for n, id in enumerate(ours(range(len(source))))}
    spoken = [plain.greedy([back[id] for id in ids], 20) for ids in sources]
    assert len(set(map(tuple, spoken))) > 2  # or the test could not fail
    for text, said, (best, *_) in zip(TEXTS, spoken, translator.hypotheses(TEXTS), strict=True):
        assert list(best.tokens) == ours(said), text
        shown = " ".join(target[id] for id in said if id not in (0, 2))
        assert best.text == (shown + " ").replace("@@ ", "").rstrip()


def test_words_have_the_ids_of_the_dictionaries(tmp_path):
    settings, _ = save_folder(tmp_path / "m")
    source, target = read_fairseq(tmp_path / "m").vocabulary
    listed = words(settings, "source")
    cut = "one cat do@@ g z@@ e@@ b@@ r@@ a"
    assert source.encode(["one cat dog zebra"]) == [ours(map(listed.index, cut.split()))]
    assert target.encode(["one"]) != source.encode(["one"])
    assert source.encode(["\u2603"]) == [[3]]
    (tmp_path / "m" / "data" / "bpe.code").unlink()
    plain = read_fairseq(tmp_path / "m").vocabulary.source
    assert plain.encode([cut]) == source.encode(["one cat dog zebra"])  # as it was cut before


def trees(settings):
    """The same settings as checkpoints of all ages have them."""
    now = content(settings, {})
    yield now
    yield {"args": Namespace(**settings), "cfg": None}
    sides = {"encoder": {}, "decoder": {}}
    flat = {}
    for name, value in settings.items():
        side, _, rest = name.partition("_")
        if side in sides:
            sides[side][rest] = value
        elif name not in ("arch", "task", "source_lang", "target_lang", "bpe"):
            flat[name] = value
    model = flat | sides | {"_name": "transformer"}
    task = {"_name": "translation", "source_lang": "en", "target_lang": "de"}
    rest = {"task": task, "generation": now["cfg"]["generation"]}
    yield {"args": None, "cfg": rest | {"model": model, "bpe": {"_name": "subword_nmt"}}}


def test_settings_of_all_ages_say_the_same(tmp_path):
    settings, arrays = save_folder(tmp_path / "m")
    file = tmp_path / "m" / "checkpoints" / "checkpoint_best.pt"
    expected = read_fairseq(tmp_path / "m").experiment
    weights = content(settings, arrays)["model"]
    for tree in trees(settings):
        save_checkpoint(file, tree | {"model": weights})
        assert read_fairseq(tmp_path / "m").experiment == expected
    assert (expected.model.dropout, expected.model.ff_dropout) == (0.3, 0.2)
    assert expected.data.target_language == "de"


def test_settings_of_omegaconf_are_read_without_it(tmp_path):
    """Its objects hold `_content`, and their values `_val`."""

    class Config:
        def __init__(self, name, **state):
            self.name, self.state = name, state

        def __reduce__(self):
            return Named(f"omegaconf.{self.name}"), (), self.state

    def wrapped(value):
        if isinstance(value, dict):
            inner = {name: wrapped(each) for name, each in value.items()}
            return Config("dictconfig.DictConfig", _content=inner, _parent=None)
        return Config("nodes.AnyNode", _val=value, _metadata=Config("base.Metadata"))

    settings, arrays = save_folder(tmp_path / "m")
    expected = read_fairseq(tmp_path / "m").experiment
    found = content(settings, arrays)
    found["cfg"]["model"] = vars(found["cfg"]["model"])
    found["cfg"] = wrapped(found["cfg"])
    save_checkpoint(tmp_path / "m" / "checkpoints" / "checkpoint_best.pt", found)
    assert read_fairseq(tmp_path / "m").experiment == expected


def test_a_search_is_that_of_the_checkpoint(tmp_path):
    save_folder(tmp_path / "m")
    search = read_fairseq(tmp_path / "m").experiment.search
    assert (search.beam_size, search.penalty, search.alpha) == (5, "average", 1.0)
    assert (search.min_length, search.max_length) == (2, 64)  # its positions' number
    told = {"beam": 3, "lenpen": 0.5, "max_len_b": 20, "min_len": 2, "no_repeat_ngram_size": 3}
    save_folder(tmp_path / "m", generation=told | {"unkpen": 0.0})
    search = read_fairseq(tmp_path / "m").experiment.search
    assert (search.beam_size, search.alpha, search.no_repeat_ngrams) == (3, 0.5, 3)
    assert (search.min_length, search.max_length, search.max_length_offset) == (3, 21, 21)
    assert search.allow_unknown and search.stopping == "full"
    save_folder(tmp_path / "m", generation={"unnormalized": True})
    assert read_fairseq(tmp_path / "m").experiment.search.penalty == "none"


def test_which_language_is_the_sources_is_said_in_one_of_three_places(tmp_path):
    unsaid = {"source_lang": None, "target_lang": None}
    settings, arrays = save_folder(tmp_path / "m")
    file = tmp_path / "m" / "checkpoints" / "checkpoint_best.pt"
    for data, given in ("data-bin/iwslt.tokenized.en-de", ("", "")), ("x", ("en", "de")):
        save_checkpoint(file, content(settings | unsaid | {"data": data}, arrays))
        told = read_fairseq(tmp_path / "m", *given).experiment.data
        assert (told.source_language, told.target_language) == ("en", "de")


def test_of_several_checkpoints_the_best_is_read_or_the_one_that_is_named(tmp_path):
    settings, _ = save_folder(tmp_path / "m")
    best = tmp_path / "m" / "checkpoints" / "checkpoint_best.pt"
    last = best.with_name("checkpoint_last.pt")
    save_checkpoint(last, content(settings, random_arrays(settings, 1)))
    found = [read_fairseq(place).params for place in (tmp_path / "m", best, last)]
    tables = [np.asarray(params["target_embedding"]["table"]) for params in found]
    assert (tables[0] == tables[1]).all() and (tables[1] != tables[2]).any()
    flat = tmp_path / "flat"  # all in one folder
    shutil.copytree(tmp_path / "m" / "data", flat)
    shutil.copy(last, flat / "model.pt")
    np.testing.assert_array_equal(read_fairseq(flat).params["target_embedding"]["table"], tables[2])


def test_tensors_of_all_kinds_are_what_they_were(tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(3, 4)).astype(np.float32)
    numbers = np.arange(24, dtype=np.float32)
    half = (x.view(np.uint32) >> 16).astype(np.uint16)  # bfloat16 cut off
    stored = {
        "plain": (Tensor(x), x),
        "turned": (Tensor(x, lies=(0, (4, 3), (1, 4))), x.T),
        "part": (Tensor(numbers, lies=(5, (2, 3), (8, 2))), numbers[5:][[[0, 2, 4], [8, 10, 12]]]),
        "double": (Tensor(x.astype(np.float64), "DoubleStorage"), x),
        "half": (Tensor(x.astype(np.float16), "HalfStorage"), x.astype(np.float16)),
        "brain": (Tensor(half, "BFloat16Storage"), (half.astype(np.uint32) << 16).view(np.float32)),
        "number": (Tensor(numbers[:1], lies=(0, (), ())), numbers[0]),
        "none": (Tensor(numbers[:0]), numbers[:0]),
    }
    file = tmp_path / "x.pt"
    listed = OrderedDict((name, tensor) for name, (tensor, _) in stored.items())
    save_checkpoint(file, {"model": listed | {"ids": Tensor(np.arange(3), "LongStorage")}})
    found = read_arrays(file, read_content(file)["model"])
    assert found.keys() == stored.keys()  # whole numbers are nobody's weights
    for name, (_, expected) in stored.items():
        assert found[name].dtype == np.float32 and found[name].shape == expected.shape
        np.testing.assert_array_equal(found[name], expected.astype(np.float32))


@pytest.mark.slow
def test_the_command_makes_a_run_that_others_take(tmp_path):
    save_folder(tmp_path / "m", PRE, {"beam": 2, "max_len_b": 20})
    workdir = tmp_path / "run"
    code, out, err = heed("import_model", f"--from={tmp_path / 'm'}", f"--workdir={workdir}")
    assert code == 0, err
    told = json.loads(out)
    assert told["search"]["beam_size"] == 2
    assert told["source_vocabulary"] == len(words(SETTINGS, "source")) + 1
    code, out, err = heed("translate", f"--workdir={workdir}", stdin="one cat\ntwo\n")
    assert code == 0 and out.count("\n") == 2, err
    code, _, err = heed("export_model", f"--workdir={workdir}", "--to=huggingface",
                        f"--output={tmp_path / 'out'}")  # fmt: skip
    assert code == 1 and "model.norm=pre has no counterpart" in err
