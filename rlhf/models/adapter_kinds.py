"""Every kind of adapter as PEFT's own config, on the linear maps of some decoder layers."""

from __future__ import annotations

import re

import torch
from peft import IA3Config, LoraConfig, PeanutConfig, PeftConfig, PromptTuningConfig, PromptTuningInit
from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING, TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from rlhf.config import AdapterConfig
from rlhf.models.four_bit import is_packed


def peft_config(base: PreTrainedModel, config: AdapterConfig, layers: range) -> PeftConfig:
    """PEFT's own description of the adapter. No adapter may be attached to the base."""
    if config.kind == "prompt":
        return PromptTuningConfig(
            num_virtual_tokens=config.virtual_tokens, prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB, task_type="CAUSAL_LM"
        )
    linears = linear_names(base, layers)
    if config.kind == "ia3":
        architecture = base.config.get_text_config().model_type
        # Keys, values and the input of the feed-forward layer (Liu 2022, arXiv 2205.05638), by this architecture's names.
        ia3_targets = TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING.get(architecture)
        feedforward = TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(architecture, [])
        return IA3Config(
            target_modules=[n for n in linears if ia3_targets is None or n.endswith(tuple(ia3_targets))],
            feedforward_modules=[n for n in linears if n.endswith(tuple(feedforward))],
            task_type="CAUSAL_LM",
        )
    if config.kind == "peanut":
        return PeanutConfig(r=config.rank, scaling=config.alpha / config.rank, target_modules=linears, task_type="CAUSAL_LM")
    return LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        use_rslora=config.kind == "rslora",
        use_dora=config.kind == "dora",
        target_modules=without_experts(base, linears),
        lora_dropout=0.0,
        task_type="CAUSAL_LM",
        # GPT-2 and models like it store their linear weights transposed.
        fan_in_fan_out=any(isinstance(m, Conv1D) for m in base.modules()),
    )


def linear_names(base: PreTrainedModel, layers: range) -> list[str]:
    """Names of the linear maps inside these decoder layers. No adapter may be attached to the base."""
    names = [n for n, m in base.named_modules() if is_linear(m)]
    return [n for n in names if (layer := re.search(r"\.(\d+)\.", n)) and int(layer[1]) in layers]


def without_experts(base: PreTrainedModel, linears: list[str]) -> list[str]:
    """The linear maps without those that PEFT would take for experts.

    For some mixtures of experts PEFT replaces the names of feed-forward maps by the experts' fused weights, which it can neither
    compute with `dora` nor load again here.
    """
    kept = []
    for name in linears:
        config = LoraConfig(target_modules=[name])
        try:
            convert_peft_config_for_transformers(config, base, None)
        except ValueError:
            continue
        if name in (config.target_modules or ()):
            kept.append(name)
    return kept


def is_linear(module: torch.nn.Module) -> bool:
    """Whether a module is a linear map and nothing more: some routers of experts are made of one, and return other things."""
    if type(module) in (torch.nn.Linear, Conv1D) or not isinstance(module, torch.nn.Linear):
        return isinstance(module, (torch.nn.Linear, Conv1D))
    if is_packed(module):
        return True
    try:
        with torch.inference_mode():
            return isinstance(module(module.weight.new_zeros(1, 1, module.weight.shape[1])), torch.Tensor)
    except Exception:
        # Whatever it raised, it does not take what a linear map takes.
        return False
