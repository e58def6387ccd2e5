"""Native Marian folders with random weights, and a plain NumPy version of the model."""

import struct

import numpy as np
import yaml

from interop.marian.binary import SETTINGS
from interop.marian.model import model_config
from interop.marian.param_names import names
from model import Transformer
from tests.experiments.marian_folders import lines, train_spm
from train.state import param_shapes

SIZE = 120  # words of a vocabulary
PLAIN = {
    "type": "transformer",
    "dim-vocabs": [SIZE, SIZE],
    "dim-emb": 16,
    "enc-depth": 2,
    "dec-depth": 2,
    "transformer-heads": 2,
    "transformer-dim-ffn": 24,
    "transformer-ffn-activation": "relu",
    "transformer-ffn-depth": 2,
    "transformer-decoder-autoreg": "rnn",
    "transformer-preprocess": "",
    "transformer-postprocess": "dan",
    "transformer-postprocess-emb": "d",
    "dec-cell": "ssru",
    "tied-embeddings-all": True,
}
DECODER = {
    "relative-paths": True,
    "models": ["model.ende.bin"],
    "vocabs": ["vocab.ende.spm", "vocab.ende.spm"],
    "beam-size": 1,
    "normalize": 1.0,
    "max-length-factor": 2.0,
}


def random_items(settings, seed=0, bias=True):
    """All arrays of a model with these settings, large enough that outputs differ."""
    rng = np.random.default_rng(seed)
    c = model_config("model", settings, [SIZE + 2] * 2)
    shapes = param_shapes(Transformer(c))
    items = {}
    for param in names(c):
        shape = shapes
        for key in param.param_path:
            shape = shape[key]
        size = param.size(shape.value.shape)
        # Sharp attention and small biases; otherwise all outputs are the same.
        gain = 5.0 if param.their_name.endswith(("_Wq", "_Wk")) else 1.5
        std = gain * (2 / sum(size)) ** 0.5 if param.inputs else 0.05
        items[param.their_name] = rng.normal(0, std, size) + param.their_name.endswith("scale")
    tables = {"all": ["Wemb"]}.get(c.tying, ["encoder_Wemb", "decoder_Wemb"])
    items |= {name: rng.normal(0, 0.4, (SIZE, c.d_model)) for name in tables}
    if c.tying == "none":
        items["decoder_ff_logit_out_W"] = rng.normal(0, 0.5, (c.d_model, SIZE))
    if bias:
        items["decoder_ff_logit_out_b"] = rng.normal(0, 0.25, (1, SIZE))
    return {name: x.astype(np.float32) for name, x in items.items()}


def quantized(items):
    """All matrices in 8 bits: (stored values, scale)."""
    matrices = {}
    for name, x in items.items():
        if name[name.rfind("_") + 1 :].startswith("W") and min(x.shape) > 1:
            scale = np.float32(127 / np.abs(x).max())
            values = np.round(x * scale).astype(np.int8)
            matrices[name] = values, scale
    return matrices


def save_npz(file, items, settings):
    text = np.frombuffer(yaml.safe_dump(settings).encode() + b"\0", np.int8)
    np.savez(file, **items, **{SETTINGS: text})


def save_bin(file, items, settings, quantized_items=()):
    """Writes Marian's binary format; matrices in `quantized_items` are stored in 8 bits."""
    text = np.frombuffer(yaml.safe_dump(settings).encode() + b"\0", np.int8)
    stored = []
    for name, x in {**items, SETTINGS: text}.items():
        kind, data = (0x101 if x.dtype == np.int8 else 0x404), x.tobytes()
        if name in quantized_items:
            values, scale = quantized_items[name]
            data = (values if "Wemb" in name else values.T).tobytes() + scale.tobytes()
            kind = 0x4101
        stored.append((name.encode() + b"\0", kind, x.shape, data + bytes(-len(data) % 256)))
    out = struct.pack("<QQ", 1, len(stored))
    out += b"".join(struct.pack("<4Q", len(n), k, len(s), len(d)) for n, k, s, d in stored)
    out += b"".join(n for n, *_ in stored)
    out += b"".join(struct.pack(f"<{len(s)}i", *s) for _, _, s, _ in stored)
    fill = -(len(out) + 8) % 256
    file.write_bytes(out + struct.pack("<Q", fill) + bytes(fill) + b"".join(s[3] for s in stored))


def save_folder(folder, settings=(), decoder=(), items=None):
    """Saves a complete folder with a .bin; returns its arrays."""
    folder.mkdir(exist_ok=True)
    settings = PLAIN | dict(settings)
    items = items or random_items(settings)
    save_bin(folder / "model.ende.bin", items, settings)
    (folder / "vocab.ende.spm").write_bytes(vocabulary())
    (folder / "config.yml").write_text(yaml.safe_dump(DECODER | dict(decoder)))
    return items


def save_shortlist(file, frequent=10, seed=0):
    """Saves random words for each source word; returns them, and the number of frequent words."""
    random = np.random.default_rng(seed)
    lists = [random.choice(SIZE, random.integers(0, 9), replace=False) for _ in range(SIZE)]
    starts = np.cumsum([0, *map(len, lists)]).astype("<u8")
    ids = np.concatenate(lists).astype("<u4")
    header = struct.pack("<6Q", 0xF11A48D5013417F5, 0, frequent, 9, len(starts), len(ids))
    file.write_bytes(header + starts.tobytes() + ids.tobytes())
    return [list_.tolist() for list_ in lists], frequent


def vocabulary(size=SIZE, seed=0) -> bytes:
    """A SentencePiece model as Marian trains it, on both languages."""
    ids = dict(eos_id=0, unk_id=1, bos_id=-1, pad_id=-1)
    return train_spm([*lines(100)[seed], *lines(100)[1]], size, "bpe", **ids)


class ReferenceModel:
    """The model in NumPy, one sentence at a time, with Marian's arrays and ids."""

    def __init__(self, items, settings):
        self.w, self.s = items, settings
        self.rnn = settings["transformer-decoder-autoreg"] == "rnn"

    def encode(self, ids):
        """ids with EOS -> [S,D]."""
        x = self._embed("encoder", ids)
        for i in range(1, self.s["enc-depth"] + 1):
            x = self._attend(f"encoder_l{i}_self", x, x)
            x = self._forward(f"encoder_l{i}_ffn", x)
        return x

    def logits(self, memory, ids):
        """Logits [T+1,V] of the next word after [], ids[:1], ids[:2], ..."""
        y = self._embed("decoder", ids, first=True)
        for i in range(1, self.s["dec-depth"] + 1):
            if self.rnn:
                y = self._recur(f"decoder_l{i}_rnn", y)
            else:
                rows = [self._attend(f"decoder_l{i}_self", y[t : t + 1], y[: t + 1])
                        for t in range(len(y))]  # fmt: skip
                y = np.concatenate(rows)
            y = self._attend(f"decoder_l{i}_context", y, memory)
            y = self._forward(f"decoder_l{i}_ffn", y)
        output = self.w.get("decoder_ff_logit_out_W")
        y = y @ (self._table("decoder").T if output is None else output)
        return y + self.w.get("decoder_ff_logit_out_b", 0.0)

    def greedy(self, ids, limit, allowed=None):
        """Greedy search among `allowed` words, without UNK."""
        memory, tokens = self.encode(ids), []
        while len(tokens) < limit and 0 not in tokens:
            row = self.logits(memory, tokens)[-1]
            row[1] = -np.inf
            if allowed is not None:
                row[[id for id in range(len(row)) if id not in allowed]] = -np.inf
            tokens.append(int(row.argmax()) if len(tokens) + 1 < limit else 0)
        return tokens

    def _table(self, side):
        return self.w.get("Wemb", self.w.get(f"{side}_Wemb"))

    def _embed(self, side, ids, first=False):
        width = self.s["dim-emb"]
        rows = self._table(side)[list(ids)].reshape(-1, width) * width**0.5
        rows = np.concatenate([np.zeros((1, width)), rows]) if first else rows
        half = width // 2
        angles = np.arange(len(rows))[:, None] * 10000.0 ** (-np.arange(half) / (half - 1))
        return rows + np.concatenate([np.sin(angles), np.cos(angles)], 1)

    def _attend(self, name, x, y):
        w = self.w
        mixed, heads, sides = [], self.s["transformer-heads"], zip("qkv", (x, y, y), strict=True)
        projected = [inputs @ w[f"{name}_W{n}"] + w[f"{name}_b{n}"] for n, inputs in sides]
        for q, k, v in zip(*(np.split(p, heads, 1) for p in projected), strict=True):
            weights = np.exp(q @ k.T / q.shape[1] ** 0.5)
            mixed.append(weights / weights.sum(1, keepdims=True) @ v)
        out = np.concatenate(mixed, 1) @ w[f"{name}_Wo"] + w[f"{name}_bo"]
        return self._norm(f"{name}_Wo", x + out)

    def _recur(self, name, x):
        w, state, outputs = self.w, 0.0, []
        for row in x:
            forget_gate = 1 / (1 + np.exp(-(row @ w[f"{name}_Wf"] + w[f"{name}_bf"][0])))
            state = forget_gate * state + (1 - forget_gate) * (row @ w[f"{name}_W"])
            outputs.append(np.maximum(state, 0))
        return self._norm(f"{name}_ffn", x + np.stack(outputs))

    def _forward(self, name, x):
        w, swish = self.w, self.s["transformer-ffn-activation"] == "swish"
        hidden = x @ w[f"{name}_W1"] + w[f"{name}_b1"]
        hidden = hidden / (1 + np.exp(-hidden)) if swish else np.maximum(hidden, 0)
        return self._norm(f"{name}_ffn", x + hidden @ w[f"{name}_W2"] + w[f"{name}_b2"])

    def _norm(self, name, x):
        x = x - x.mean(1, keepdims=True)
        x = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-6)
        return x * self.w[f"{name}_ln_scale"] + self.w[f"{name}_ln_bias"]
