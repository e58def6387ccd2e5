"""Training of PyTorch models: batches of similar lengths, Adam, label smoothing."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from benchmarks.train_workloads import LEARNING_RATE, SMOOTHING, STEP_TOKENS, Workload
from data.batch import BOS, EOS, PAD, pad_rows
from model.flops import training_flops
from model.positions import sinusoids

Logits = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # [B,S], [B,T] -> [B,T,V]


class Seq2Seq(nn.Module):
    """nn.Transformer with one table for embedding and output, and sinusoidal positions."""

    encodings: torch.Tensor

    def __init__(self, c, max_length: int = 128):
        super().__init__()
        self.width = c.d_model
        self.table = nn.Embedding(c.vocab_size, c.d_model)
        nn.init.normal_(self.table.weight, std=c.d_model**-0.5)
        encodings = np.array(sinusoids(np.arange(max_length), c.d_model))
        self.register_buffer("encodings", torch.from_numpy(encodings))
        self.drop = nn.Dropout(c.dropout)
        sizes = dict(d_model=c.d_model, nhead=c.num_heads, dim_feedforward=c.d_ff)
        layers = dict(num_encoder_layers=c.encoder_layers, num_decoder_layers=c.decoder_layers)
        self.body = nn.Transformer(**sizes, **layers, dropout=c.dropout, batch_first=True)
        for layer in (*self.body.encoder.layers, *self.body.decoder.layers):
            layer.dropout.p = c.mlp_dropout  # of the feed-forward's hidden units
            for module in layer.children():
                if isinstance(module, nn.MultiheadAttention):
                    module.dropout = c.attention_dropout

    def forward(self, src, tgt):
        """src [B,S], tgt [B,T] -> logits [B,T,V]."""
        length = tgt.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=tgt.device).triu(1)
        padding = src == PAD
        hidden = self.body(
            self._embed(src),
            self._embed(tgt),
            tgt_mask=causal,
            tgt_is_causal=True,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return hidden @ self.table.weight.T

    def _embed(self, ids):
        return self.drop(self.table(ids) * self.width**0.5 + self.encodings[: ids.shape[1]])


def make(workload: Workload, precision: str, cores: int):
    """Return a function that does a round of nn.Transformer updates, and JSON fields."""
    return train_rounds(Seq2Seq(workload.config), workload, precision, cores)


def train_rounds(model: nn.Module, workload: Workload, precision: str, cores: int):
    """Return the same for a model that maps source and target to logits."""
    torch.set_num_threads(cores)
    torch.manual_seed(0)
    model.train()
    optimizer = torch.optim.Adam(
        model.parameters(), LEARNING_RATE, betas=(0.9, 0.98), eps=1e-9, fused=True
    )
    loss_fn = nn.CrossEntropyLoss(ignore_index=PAD, label_smoothing=SMOOTHING)
    batches, padding = _batches(workload)

    def run() -> int:
        tokens = 0
        for _ in range(workload.steps):
            src, tgt = next(batches)
            shifted = torch.cat([torch.full_like(tgt[:, :1], BOS), tgt[:, :-1]], 1)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                logits = model(src, shifted)
            loss = loss_fn(logits.float().flatten(0, 1), tgt.flatten())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            tokens += int((src != PAD).sum() + (tgt != PAD).sum())
        return tokens

    source, target = workload.pairs.lengths
    gflop = training_flops(workload.config, source, target) / (source.sum() + target.sum())
    return run, dict(padding_fraction=round(padding, 4), gflop_per_token=1e-9 * float(gflop))


def _batches(workload: Workload) -> tuple[Iterator, float]:
    """Batches of similar lengths and about STEP_TOKENS target tokens, shuffled; and the padding."""
    source, target = workload.pairs.lengths
    order = np.lexsort((source, target))
    groups: list[list[int]] = []
    group: list[int] = []
    for pair in order:
        if group and (len(group) + 1) * target[pair] > STEP_TOKENS:
            groups.append(group)
            group = []
        group.append(pair)
    groups.append(group)
    positions = sum(len(g) * int(source[g].max() + target[g].max()) for g in groups)
    rng = np.random.default_rng(0)

    def stream():
        while True:
            for index in rng.permutation(len(groups)):
                pairs = groups[index]
                yield tuple(
                    torch.from_numpy(
                        pad_rows([[*ids[i], EOS] for i in pairs], len(pairs), max(lengths[pairs]))
                    ).long()
                    for ids, lengths in zip(workload.pairs, workload.pairs.lengths, strict=True)
                )

    return stream(), 1 - float(source.sum() + target.sum()) / positions
