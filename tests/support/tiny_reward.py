"""Reward models from elsewhere, small enough for every test: a decoder with a chat template, and an encoder that reads a pair of texts."""

from __future__ import annotations

from pathlib import Path

import tiny
import torch
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForSequenceClassification, PreTrainedTokenizerFast


def decoder(folder: Path, *, labels: int = 1, pads: bool = True, positions: int = 512, seed: int = 5) -> Path:
    """A Llama of two layers over bytes."""
    tokenizer = tiny.tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        max_position_embeddings=positions, num_labels=labels, bos_token_id=None, eos_token_id=None, initializer_range=0.5,
        pad_token_id=tokenizer.pad_token_id if pads else None,
    )  # fmt: skip
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def encoder(folder: Path, *, positions: int = 64) -> Path:
    """A BERT of one layer over bytes, whose tokenizer has no chat template and marks the two texts by their types."""
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = None
    tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    torch.manual_seed(7)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=positions, num_labels=1, pad_token_id=tokenizer.pad_token_id, initializer_range=0.5,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
