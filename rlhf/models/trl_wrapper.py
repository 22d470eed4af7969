"""What TRL's trainers are given in place of a plain model: a config for the module that wraps the shared backbone, and a tokenizer.

And what makes several ranks learn from the batches of one: each trainer reads whole batches, and its collator keeps the rank's share.
Leaves out the modules themselves (`reward.model`, `trl_methods.trl_policy`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import PreTrainedConfig, PreTrainedTokenizerBase, TrainingArguments

from rlhf.models.backbone import Backbone
from rlhf.models.ranks import Ranks

Arguments = TypeVar("Arguments", bound=TrainingArguments)


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


def on_one_device(arguments: Arguments) -> Arguments:
    """The arguments, for a process that has one device however many it sees.

    With several GPUs in sight and no launcher, a transformers trainer copies the model to all of them (DataParallel), which neither the
    shared backbone nor the batch size is made for.
    """
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments


def whole_batches(loader: DataLoader[Any], accelerator: Accelerator) -> DataLoader[Any]:
    """The loader as `Accelerator.prepare` makes it for a single process, so that every rank reads all batches, in the same order."""
    prepared: DataLoader[Any] = prepare_data_loader(
        loader,
        accelerator.device,
        num_processes=1,
        process_index=0,
        put_on_device=True,
        rng_types=[],
        use_seedable_sampler=accelerator.use_seedable_sampler,
        data_seed=accelerator.dataloader_config.data_seed,
        non_blocking=accelerator.non_blocking,
    )
    return prepared


class ShareCollator:
    """Collates this rank's share of a batch, and says in `share` what its mean loss is multiplied by.

    DistributedDataParallel takes the mean over ranks of their gradients, and the batch's is the mean over its terms: so `share` is the
    rank's part of the terms times the number of ranks. A rank without a row collates the first one with weight 0.

    Args:
        terms: of how many terms an example's loss is the mean.
    """

    def __init__(self, collate: Callable[[Any], Mapping[str, Any]], ranks: Ranks, terms: Callable[[Any], int] = lambda _: 1):
        self.collate, self.ranks, self.terms = collate, ranks, terms

    def __call__(self, examples: Sequence[Any]) -> dict[str, Any]:
        mine = examples[self.ranks.share(len(examples))]
        own, whole = (sum(map(self.terms, some)) for some in (mine, examples))
        return {**self.collate(mine or examples[:1]), "share": torch.tensor(self.ranks.count * own / whole)}
