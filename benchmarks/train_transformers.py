"""Hugging Face's Marian, trained in PyTorch."""

from torch import nn
from transformers import MarianMTModel

from benchmarks.marian import marian_config
from benchmarks.train_pytorch import train_rounds
from benchmarks.train_workloads import Workload
from data.batch import PAD


class _Logits(nn.Module):
    def __init__(self, model: MarianMTModel):
        super().__init__()
        self.model = model

    def forward(self, src, tgt):
        output = self.model(
            src, attention_mask=(src != PAD).long(), decoder_input_ids=tgt, use_cache=False
        )
        return output.logits


def make(workload: Workload, precision: str, cores: int):
    """Return a function that does a round of updates, and fields of its JSON line."""
    c = workload.config
    rates = dict(dropout=c.dropout, attention_dropout=0.0, activation_dropout=0.0)
    config = marian_config(c, 128, **rates)
    return train_rounds(_Logits(MarianMTModel(config)), workload, precision, cores)
