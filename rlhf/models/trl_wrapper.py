"""What TRL's trainers are given in place of a plain model: a config for the module that wraps the shared backbone, and a tokenizer.

Leaves out the modules themselves (`reward.model`, `trl_methods.trl_policy`).
"""

from __future__ import annotations

import copy

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from rlhf.models.backbone import Backbone


def wrapper_config(backbone: Backbone) -> PreTrainedConfig:
    """A copy of the base's config for a module that has neither attention nor experts of its own.

    The backbone keeps the implementations that it was loaded with. The routers of a mixture of experts are frozen, so that there is no
    loss of their balance either.
    """
    config: PreTrainedConfig = copy.deepcopy(backbone.base.config)
    for part in (config, config.get_text_config()):
        part._attn_implementation = "eager"
        part._experts_implementation = "eager"
        if hasattr(part, "router_aux_loss_coef"):
            part.router_aux_loss_coef = 0.0
    return config


def processing_class(backbone: Backbone) -> PreTrainedTokenizerBase:
    """A copy of the tokenizer, which a trainer may change; with an end and a padding token where it has none of its own."""
    tokenizer: PreTrainedTokenizerBase = copy.deepcopy(backbone.tokenizer)
    if tokenizer.eos_token_id is None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(backbone.eos_id)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(backbone.pad_id)
    return tokenizer
