"""Hugging Face transformers with Heed's weights."""

import torch

from benchmarks.heed_system import parameters
from benchmarks.marian import marian
from benchmarks.workloads import Workload
from data.batch import EOS, PAD, pad_rows
from model import TransformerConfig

BATCH = 16  # of mixed lengths


def make(config: TransformerConfig, workload: Workload, precision: str, cores: int, tokens: int):
    """Return a function that translates the workload once, and fields of its JSON line.

    All outputs of a batch get the length of its longest, so mixed lengths are sorted first.
    """
    torch.set_num_threads(cores)
    translator = marian(config, parameters(config)).to(getattr(torch, precision))
    jobs = []
    for group in workload.groups(BATCH):
        sources = [[*workload.sources[row], EOS] for row in group]
        src = torch.from_numpy(pad_rows(sources, len(sources), max(map(len, sources)))).long()
        jobs.append((src, workload.lengths[group[0]]))

    @torch.inference_mode()
    def run():
        for src, length in jobs:
            outputs = translator.generate(
                src,
                attention_mask=(src != PAD).long(),
                num_beams=workload.beam_size,
                length_penalty=0.6,
                min_new_tokens=length,
                max_new_tokens=length,
                do_sample=False,
            )
            assert outputs.shape[1] == length + 1  # with the start token

    return run, {}
