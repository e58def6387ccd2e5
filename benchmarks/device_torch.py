"""PyTorch's nn.Transformer beside Heed in benchmarks.device: the same sizes, bfloat16 autocast."""

import statistics
import time

import torch
from torch import nn

from benchmarks.device_training import LENGTH, packed_batch, train_config
from benchmarks.train_pytorch import Seq2Seq
from data.batch import PAD, shift_right


def measure_torch(size: str, *, small: bool, rounds: int, rates: dict) -> dict:
    """Measure train steps of rows that are one sentence each: nn.Transformer has no packing."""
    del rates  # PyTorch's products are not Heed's
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = train_config(size, small)
    rows = 4 if small else 24_576 // LENGTH
    model = Seq2Seq(config).to(device).train()
    fused = dict(fused=True)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4, betas=(0.9, 0.98), eps=1e-9, **fused)
    loss_fn = nn.CrossEntropyLoss(ignore_index=PAD, label_smoothing=0.1)
    batch = packed_batch(rows, config.vocab_size)
    src, tgt = (torch.from_numpy(x).long().to(device) for x in (batch.src, batch.tgt))
    shifted = torch.from_numpy(shift_right(batch.tgt)).long().to(device)

    def run() -> None:
        with torch.autocast(device, torch.bfloat16):
            logits = model(src, shifted)
            loss = loss_fn(logits.flatten(0, 1), tgt.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    run()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else None
    tokens = 2 * rows * LENGTH / statistics.median(seconds)
    return {"tokens_per_second": round(tokens), "peak_bytes": peak, "torch": torch.__version__}
