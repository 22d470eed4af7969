"""A language model small enough for every test: two layers over bytes, written to disk like a real one."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from rlhf.models.backbone import Backbone

TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tokenizer(*, pad_is_eos: bool = False, merges: bool = False) -> PreTrainedTokenizerFast:
    """One token a byte, and the specials of a chat.

    Args:
        merges: "er" is a token too, in place of the byte "~".
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"er" if merges and c == "~" else c: i for i, c in enumerate(alphabet)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("e", "r")] if merges else []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    made = PreTrainedTokenizerFast(
        tokenizer_object=core,
        eos_token="<|end|>",
        pad_token="<|end|>" if pad_is_eos else "<|pad|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
    )
    made.chat_template = TEMPLATE
    return made


def model(vocabulary: int, *, seed: int = 0, layers: int = 2) -> torch.nn.Module:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.2,
        # Llama's own ids, 1 and 2, are letters of this vocabulary.
        bos_token_id=None,
        eos_token_id=None,
    )
    return AutoModelForCausalLM.from_config(config)


def write(folder: Path, *, pad_is_eos: bool = False, merges: bool = False) -> Path:
    """A folder that `--model` takes."""
    tok = tokenizer(pad_is_eos=pad_is_eos, merges=merges)
    net = model(len(tok))
    net.config.eos_token_id, net.config.pad_token_id = tok.eos_token_id, tok.pad_token_id
    net.save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


def favour(backbone: Backbone, token: int, by: float) -> None:
    """Raises one token's logit everywhere, so that rows end early or never."""
    bias = torch.zeros(backbone.base.lm_head.out_features)
    bias[token] = by
    backbone.base.lm_head.bias = torch.nn.Parameter(bias, requires_grad=False)
