"""Hugging Face's Marian, trained in PyTorch."""

from torch import nn
from transformers import MarianConfig, MarianMTModel

from benchmarks.train_pytorch import trained
from benchmarks.training import Workload
from data.batch import BOS, EOS, PAD


class _Logits(nn.Module):
    def __init__(self, model: MarianMTModel):
        super().__init__()
        self.model = model

    def forward(self, src, tgt):
        found = self.model(
            src, attention_mask=(src != PAD).long(), decoder_input_ids=tgt, use_cache=False
        )
        return found.logits


def make(work: Workload, precision: str, cores: int):
    """A function that makes a round's updates, and facts for its line."""
    c = work.config
    config = MarianConfig(
        vocab_size=c.vocab_size,
        d_model=c.d_model,
        encoder_layers=c.encoder_layers,
        decoder_layers=c.decoder_layers,
        encoder_ffn_dim=c.d_ff,
        decoder_ffn_dim=c.d_ff,
        encoder_attention_heads=c.num_heads,
        decoder_attention_heads=c.num_heads,
        activation_function="relu",
        dropout=c.dropout,
        attention_dropout=0.0,
        activation_dropout=0.0,
        scale_embedding=True,
        pad_token_id=PAD,
        eos_token_id=EOS,
        bos_token_id=BOS,
        decoder_start_token_id=BOS,
        forced_eos_token_id=None,
        max_position_embeddings=128,
    )
    return trained(_Logits(MarianMTModel(config)), work, precision, cores)
