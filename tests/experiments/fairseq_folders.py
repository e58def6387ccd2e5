"""fairseq folders with random weights, and a plain NumPy version of the model.

Checkpoints are written in PyTorch's format, without PyTorch.
"""

import io
import math
import pickle
import zipfile
from argparse import Namespace
from collections import OrderedDict

import numpy as np

SETTINGS = {
    "arch": "transformer_iwslt_de_en",
    "task": "translation",
    "source_lang": "en",
    "target_lang": "de",
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_embed_dim": 16,
    "decoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 24,
    "decoder_ffn_embed_dim": 24,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_normalize_before": False,
    "decoder_normalize_before": False,
    "activation_fn": "relu",
    "share_all_embeddings": False,
    "share_decoder_input_output_embed": True,
    "layernorm_embedding": False,
    "adaptive_softmax_cutoff": None,
    "max_source_positions": 64,
    "max_target_positions": 64,
    "dropout": 0.3,
    "relu_dropout": 0.2,
    "bpe": None,
}
MERGES = "#version: 0.2\no n\non e</w>\nc a\nca t</w>\nd o\n"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MARKS = ["<s>", "<pad>", "</s>", "<unk>"]


class Global:
    """A global name in a pickle, which need not exist."""

    def __init__(self, full):
        self.full = full

    def __call__(self):
        raise AssertionError


class Tensor:
    """A storage and a tensor's (offset, size, stride) in it; by default all of it."""

    def __init__(self, numbers, kind="FloatStorage", layout=None):
        steps = [step // numbers.itemsize for step in numbers.strides]
        self.numbers, self.kind = np.ascontiguousarray(numbers), kind
        self.layout = layout or (0, numbers.shape, tuple(steps))


class _Storage:
    def __init__(self, tensor):
        self.tensor = tensor


class PickleWriter(pickle._Pickler):
    """A pickler that writes `Global` names and `Tensor` storages."""

    dispatch = pickle._Pickler.dispatch | {
        Global: lambda self, name: self.write(
            "c{}\n{}\n".format(*name.full.rsplit(".", 1)).encode()
        )
    }

    def __init__(self, file):
        super().__init__(file, 2)
        self.storages = []

    def reducer_override(self, obj):
        if not isinstance(obj, Tensor):
            return NotImplemented
        offset, size, stride = obj.layout
        arguments = _Storage(obj), offset, size, stride, False, OrderedDict()
        return Global("torch._utils._rebuild_tensor_v2"), arguments

    def persistent_id(self, obj):
        if not isinstance(obj, _Storage):
            return None
        self.storages.append(obj.tensor.numbers)
        kind = Global(f"torch.{obj.tensor.kind}")
        return "storage", kind, str(len(self.storages) - 1), "cpu", obj.tensor.numbers.size


def save_checkpoint(file, content):
    """Writes a checkpoint like torch.save."""
    out = io.BytesIO()
    writer = PickleWriter(out)
    writer.dump(content)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{file.stem}/data.pkl", out.getvalue())
        archive.writestr(f"{file.stem}/byteorder", "little")
        for key, numbers in enumerate(writer.storages):
            archive.writestr(f"{file.stem}/data/{key}", numbers.tobytes())


def dictionary(side):
    """The words of a side without the four special ones: letters, and words from merges."""
    words = [*LETTERS, *(f"{letter}@@" for letter in LETTERS), "one", "on@@", "cat", "do@@"]
    words = words if side == "en" else [*words[::-1], "Katze", "eins"]
    return [*words, *(f"madeupword{n:04}" for n in range(-(len(words) + 4) % 8))]


def words(settings, side):
    shared = settings["share_all_embeddings"]
    return [*MARKS, *dictionary("en" if shared else settings[f"{side}_lang"])]


def random_arrays(settings, seed=0):
    """All arrays of a model with these settings, large enough that outputs differ."""
    rng = np.random.default_rng(seed)
    arrays = {}
    width, hidden = settings["encoder_embed_dim"], settings["encoder_ffn_embed_dim"]

    def linear(name, shape, gain=1.5):
        arrays[f"{name}.weight"] = rng.normal(0, gain * (2 / sum(shape)) ** 0.5, shape)
        arrays[f"{name}.bias"] = rng.normal(0, 0.05, shape[0])

    def norm(name):
        arrays[f"{name}.weight"] = rng.normal(1, 0.05, width)
        arrays[f"{name}.bias"] = rng.normal(0, 0.05, width)

    for side, text_side in ("encoder", "source"), ("decoder", "target"):
        arrays[f"{side}.embed_tokens.weight"] = rng.normal(
            0, 0.4, (len(words(settings, text_side)), width)
        )
        arrays[f"{side}.version"] = np.array([3.0])
        if settings.get("encoder_learned_pos"):
            rows = settings["max_source_positions"] + 2
            arrays[f"{side}.embed_positions.weight"] = rng.normal(0, 0.4, (rows, width))
        else:
            arrays[f"{side}.embed_positions._float_tensor"] = np.array([np.nan])
        attentions = ["self_attn"] if side == "encoder" else ["self_attn", "encoder_attn"]
        for i in range(settings[f"{side}_layers"]):
            layer = f"{side}.layers.{i}"
            for attention in attentions:
                for part in "q", "k", "v", "out":
                    # Sharp attention, also to the source; otherwise all outputs are the same.
                    gain = 2.5 if part in "qk" else 3.0 if attention == "encoder_attn" else 1.5
                    linear(f"{layer}.{attention}.{part}_proj", (width, width), gain)
                norm(f"{layer}.{attention}_layer_norm")
            linear(f"{layer}.fc1", (hidden, width))
            linear(f"{layer}.fc2", (width, hidden))
            norm(f"{layer}.final_layer_norm")
        if settings["encoder_normalize_before"]:
            norm(f"{side}.layer_norm")
    if settings["share_all_embeddings"]:
        arrays["decoder.embed_tokens.weight"] = arrays["encoder.embed_tokens.weight"]
    output = arrays["decoder.embed_tokens.weight"]
    if not settings["share_all_embeddings"] and not settings["share_decoder_input_output_embed"]:
        output = rng.normal(0, 0.5, output.shape)
    arrays["decoder.output_projection.weight"] = output
    return {name: x.astype(np.float32) for name, x in arrays.items()}


def content(settings, arrays, generation=()):
    """A checkpoint in the current format, with the settings of an old class."""
    return {
        "args": None,
        "cfg": {
            "model": Namespace(**settings),
            "task": {"_name": "translation", "source_lang": None, "target_lang": None},
            "bpe": settings["bpe"],
            "tokenizer": None,
            "generation": {"beam": 5, "lenpen": 1.0, "max_len_b": 200} | dict(generation),
        },
        "model": OrderedDict((name, Tensor(x)) for name, x in arrays.items()),
        "optimizer_history": [{"num_updates": 7}],
        "last_optimizer_state": {"state": {0: {"exp_avg": Tensor(np.zeros(3, np.float32))}}},
    }


def save_folder(folder, settings=(), generation=(), merges=MERGES, seed=0):
    """Saves a complete folder; returns its settings and arrays."""
    settings = SETTINGS | dict(settings)
    arrays = random_arrays(settings, seed)
    for subfolder in folder / "checkpoints", folder / "data":
        subfolder.mkdir(parents=True, exist_ok=True)
    save_checkpoint(
        folder / "checkpoints" / "checkpoint_best.pt", content(settings, arrays, generation)
    )
    for side in "source", "target":
        lines = "".join(f"{word} {9}\n" for word in words(settings, side)[4:])
        (folder / "data" / f"dict.{settings[f'{side}_lang']}.txt").write_text(lines)
    if merges:
        (folder / "data" / "bpe.code").write_text(merges)
    return settings, arrays


class ReferenceModel:
    """The model in NumPy, one sentence at a time, with fairseq's arrays and ids."""

    def __init__(self, arrays, settings):
        self.w, self.s = arrays, settings
        self.pre = settings["encoder_normalize_before"]

    def encode(self, ids):
        """ids with EOS -> [S,D]."""
        x = self._embed("encoder", ids)
        for i in range(self.s["encoder_layers"]):
            layer = f"encoder.layers.{i}"
            x = self._framed(f"{layer}.self_attn_layer_norm", x,
                             lambda y, n=layer: self._attend(f"{n}.self_attn", y, y))  # fmt: skip
            x = self._feed_forward(layer, x)
        return self._norm("encoder.layer_norm", x) if self.pre else x

    def logits(self, memory, ids):
        """Logits [T+1,V] of the next word after [], ids[:1], ids[:2], ..."""
        x = self._embed("decoder", [2, *ids])
        for i in range(self.s["decoder_layers"]):
            layer = f"decoder.layers.{i}"
            x = self._framed(f"{layer}.self_attn_layer_norm", x, lambda y, n=layer: np.concatenate(
                [self._attend(f"{n}.self_attn", y[t : t + 1], y[: t + 1]) for t in range(len(y))]
            ))  # fmt: skip
            x = self._framed(f"{layer}.encoder_attn_layer_norm", x,
                             lambda y, n=layer: self._attend(f"{n}.encoder_attn", y, memory)
                             )  # fmt: skip
            x = self._feed_forward(layer, x)
        if self.pre:
            x = self._norm("decoder.layer_norm", x)
        return x @ self.w["decoder.output_projection.weight"].T

    def greedy(self, ids, limit):
        """Greedy search without padding."""
        memory, tokens = self.encode(ids), []
        while len(tokens) < limit and 2 not in tokens:
            row = self.logits(memory, tokens)[-1]
            row[[1] if tokens else [1, 2]] = -np.inf
            tokens.append(int(row.argmax()) if len(tokens) + 1 < limit else 2)
        return tokens

    def _embed(self, side, ids):
        width = self.s["encoder_embed_dim"]
        rows = self.w[f"{side}.embed_tokens.weight"][list(ids)]
        if not self.s.get("no_scale_embedding"):
            rows = rows * width**0.5
        positions = np.arange(2, 2 + len(rows))
        if self.s.get("encoder_learned_pos"):
            return rows + self.w[f"{side}.embed_positions.weight"][positions]
        half = width // 2
        rates = np.exp(np.arange(half) * -(math.log(10000) / (half - 1)))
        angles = positions[:, None] * rates
        return rows + np.concatenate([np.sin(angles), np.cos(angles)], 1)

    def _linear(self, name, x):
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def _attend(self, name, x, y):
        mixed, heads = [], self.s["encoder_attention_heads"]
        sides = zip("qkv", (x, y, y), strict=True)
        projected = [self._linear(f"{name}.{part}_proj", inputs) for part, inputs in sides]
        for q, k, v in zip(*(np.split(p, heads, 1) for p in projected), strict=True):
            weights = q @ k.T / q.shape[1] ** 0.5
            weights = np.exp(weights - weights.max(1, keepdims=True))
            mixed.append(weights / weights.sum(1, keepdims=True) @ v)
        return self._linear(f"{name}.out_proj", np.concatenate(mixed, 1))

    def _feed_forward(self, layer, x):
        def forward(y):
            hidden = self._linear(f"{layer}.fc1", y)
            kind = self.s["activation_fn"]
            if kind == "swish":
                hidden = hidden / (1 + np.exp(-hidden))
            elif kind == "gelu":
                hidden = hidden * 0.5 * (1 + np.vectorize(math.erf)(hidden / math.sqrt(2)))
            else:
                hidden = np.maximum(hidden, 0)
            return self._linear(f"{layer}.fc2", hidden)

        return self._framed(f"{layer}.final_layer_norm", x, forward)

    def _framed(self, name, x, function):
        if self.pre:
            return x + function(self._norm(name, x))
        return self._norm(name, x + function(x))

    def _norm(self, name, x):
        x = x - x.mean(1, keepdims=True)
        x = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-5)
        return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]
