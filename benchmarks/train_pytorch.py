"""Training of PyTorch models: batches of similar lengths, Adam, label smoothing."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from benchmarks.train_workloads import LEARNING_RATE, SMOOTHING, STEP_TOKENS, Workload, flops
from data.batch import BOS, EOS, PAD, pad_rows
from model.positions import sinusoids

Logits = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # [B,S], [B,T] -> [B,T,V]


class Seq2Seq(nn.Module):
    """nn.Transformer between one table, as embedding and as output, and sinusoids."""

    places: torch.Tensor

    def __init__(self, c, longest: int = 128):
        super().__init__()
        self.width = c.d_model
        self.table = nn.Embedding(c.vocab_size, c.d_model)
        nn.init.normal_(self.table.weight, std=c.d_model**-0.5)
        places = np.array(sinusoids(np.arange(longest), c.d_model))
        self.register_buffer("places", torch.from_numpy(places))
        self.drop = nn.Dropout(c.dropout)
        sizes = dict(d_model=c.d_model, nhead=c.num_heads, dim_feedforward=c.d_ff)
        layers = dict(num_encoder_layers=c.encoder_layers, num_decoder_layers=c.decoder_layers)
        self.body = nn.Transformer(**sizes, **layers, dropout=c.dropout, batch_first=True)
        for layer in (*self.body.encoder.layers, *self.body.decoder.layers):
            layer.dropout.p = c.ff_dropout  # of the feed-forward's hidden units
            for part in layer.children():
                if isinstance(part, nn.MultiheadAttention):
                    part.dropout = c.attention_dropout

    def forward(self, src, tgt):
        """src [B,S], tgt [B,T] -> logits [B,T,V]."""
        length = tgt.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        empty = src == PAD
        found = self.body(
            self._embed(src),
            self._embed(tgt),
            tgt_mask=causal,
            tgt_is_causal=True,
            src_key_padding_mask=empty,
            memory_key_padding_mask=empty,
        )
        return found @ self.table.weight.T

    def _embed(self, ids):
        return self.drop(self.table(ids) * self.width**0.5 + self.places[: ids.shape[1]])


def make(work: Workload, precision: str, cores: int):
    """A function that makes a round's updates of nn.Transformer, and facts for its line."""
    return trained(Seq2Seq(work.config), work, precision, cores)


def trained(model: nn.Module, work: Workload, precision: str, cores: int):
    """The same of any model that is a function of source and target to logits."""
    torch.set_num_threads(cores)
    torch.manual_seed(0)
    model.train()
    adam = torch.optim.Adam(
        model.parameters(), LEARNING_RATE, betas=(0.9, 0.98), eps=1e-9, fused=True
    )
    loss_of = nn.CrossEntropyLoss(ignore_index=PAD, label_smoothing=SMOOTHING)
    batches, padding = _batches(work)

    def run() -> int:
        tokens = 0
        for _ in range(work.steps):
            src, tgt = next(batches)
            shifted = torch.cat([torch.full_like(tgt[:, :1], BOS), tgt[:, :-1]], 1)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
                logits = model(src, shifted)
            loss = loss_of(logits.float().flatten(0, 1), tgt.flatten())
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()
            tokens += int((src != PAD).sum() + (tgt != PAD).sum())
        return tokens

    source, target = work.pairs.lengths
    each = flops(work.config, source, target) / (source.sum() + target.sum())
    return run, dict(padding=round(padding, 4), gflop_a_token=1e-9 * float(each))


def _batches(work: Workload) -> tuple[Iterator, float]:
    """Sorted by length into batches of about as many target tokens, in random order; padding."""
    source, target = work.pairs.lengths
    order = np.lexsort((source, target))
    groups: list[list[int]] = []
    group: list[int] = []
    for pair in order:
        if group and (len(group) + 1) * target[pair] > STEP_TOKENS:
            groups.append(group)
            group = []
        group.append(pair)
    groups.append(group)
    places = sum(len(g) * int(source[g].max() + target[g].max()) for g in groups)
    random = np.random.default_rng(0)

    def stream():
        while True:
            for number in random.permutation(len(groups)):
                pairs = groups[number]
                yield tuple(
                    torch.from_numpy(
                        pad_rows([[*ids[i], EOS] for i in pairs], len(pairs), max(lengths[pairs]))
                    ).long()
                    for ids, lengths in zip(work.pairs, work.pairs.lengths, strict=True)
                )

    return stream(), 1 - float(source.sum() + target.sum()) / places
