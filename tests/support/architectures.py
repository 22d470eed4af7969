"""Random models of many architectures that transformers has, each small enough for a test: two layers, 32 wide, over bytes."""

from __future__ import annotations

import tiny
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from rlhf.models.backbone import Backbone

SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 512, "bos_token_id": None, "eos_token_id": None, "pad_token_id": None,
}  # fmt: skip
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
FINE_EXPERTS = {**EXPERTS, "moe_intermediate_size": 32, "decoder_sparse_step": 1}

ARCHITECTURES: dict[str, dict[str, object]] = {
    "bloom": {"n_layer": 2, "n_head": 4},
    "cohere": {},
    "cohere2": {},
    "deepseek_v3": {
        "n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "n_group": 1, "topk_group": 1, "q_lora_rank": 16,
        "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 8, "first_k_dense_replace": 1,
        "num_key_value_heads": 4,
    },
    "ernie4_5": {},
    "exaone4": {},
    "falcon": {"ffn_hidden_size": 64, "new_decoder_architecture": True, "num_kv_heads": 2, "head_dim": ...},
    "gemma": {},
    "gemma2": {"final_logit_softcapping": 0.05},
    "gemma3_text": {"sliding_window": 64},
    "glm": {},
    "glm4": {},
    "gpt2": {**GPT2, "n_inner": 64},
    "gpt_neo": {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "gpt_neox": {},
    "gpt_oss": LOCAL_EXPERTS,
    "gptj": {**GPT2, "rotary_dim": 4, "n_inner": 64},
    "granite": {"logits_scaling": 4.0},
    "granitemoe": LOCAL_EXPERTS,
    "lfm2": {},
    "llama": {},
    "mamba": {},
    "mistral": {},
    "mixtral": LOCAL_EXPERTS,
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 512},
    "nemotron": {},
    "olmo2": {},
    "olmoe": EXPERTS,
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "phi": {},
    "phi3": {},
    "phimoe": LOCAL_EXPERTS,
    "qwen2": {},
    "qwen2_moe": {**FINE_EXPERTS, "shared_expert_intermediate_size": 32},
    "qwen3": {},
    "qwen3_moe": FINE_EXPERTS,
    "smollm3": {},
    "stablelm": {},
    "starcoder2": {},
}  # fmt: skip
"""The fields of each architecture's config beside `SIZES`; `...` leaves one of those out."""


def model(name: str, *, seed: int = 0) -> PreTrainedModel:
    fields = {**SIZES, "vocab_size": len(tiny.tokenizer()), **ARCHITECTURES[name]}
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(name, **{k: v for k, v in fields.items() if v is not ...}))


def backbone(name: str) -> Backbone:
    return Backbone(model(name), tiny.tokenizer())
