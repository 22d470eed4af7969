"""Several processes that train one policy side by side, each on its own prompts, as torchrun would start them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from small_ppo import ADAPTER_CONFIG, CONFIG, gradients, scrambled, trainer
from torch import distributed, multiprocessing
from torch.nn.parallel import DistributedDataParallel

from rlhf.config import RewardConfig
from rlhf.models.backbone import Backbone
from rlhf.ppo import ptx
from rlhf.ppo.rollout import POLICY
from rlhf.reward.model import ADAPTER, RewardModel, TokenizedExample
from rlhf.runs.work import NO_PROGRESS

DEMONSTRATIONS = [TokenizedExample([5, 6, 7, 8, 9], 2), TokenizedExample([10, 11, 12], 1)]


def gradients_of_each(folder: Path, scratch: Path, world: int = 2) -> list[dict[str, torch.Tensor]]:
    """Of every rank the gradients by "loss.how.name": of its own batch alone, and of the same batch under DistributedDataParallel."""
    multiprocessing.spawn(_on_rank, args=(world, folder, scratch), nprocs=world)
    return [load_file(scratch / f"{rank}.safetensors") for rank in range(world)]


def _on_rank(rank: int, world: int, folder: Path, scratch: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{scratch / 'rendezvous'}", rank=rank, world_size=world)
    found = {}
    for loss, warmup in (("ppo", 0), ("warmup", 1), ("ptx", 0)):
        ppo = scrambled(trainer(folder, replace(CONFIG, value_warmup=warmup)))
        rollout = ppo.collect(ppo.value_head, NO_PROGRESS)
        demonstration = [ptx.tokens(ppo.backbone, [DEMONSTRATIONS[rank]])]
        # What a loss does not reach has no gradient, and must not be waited for.
        wrapped = DistributedDataParallel(ppo.model, find_unused_parameters=loss != "ppo")
        for how, model in (("alone", ppo.model), ("together", wrapped)):
            ppo.model = model
            ppo.optimizer.zero_grad(set_to_none=True)
            if loss == "ptx":
                ptx.add_gradients(ppo.model, demonstration, 0.5, adapter=POLICY)
            else:
                gradients(ppo, rollout)
            weights = {**ppo.policy, **dict(ppo.value_head.named_parameters())}
            found |= {f"{loss}.{how}.{name}": p.grad.clone() for name, p in weights.items() if p.grad is not None}
        trained = {id(p) for p in weights.values()}
        assert all(p.grad is None for p in wrapped.parameters() if id(p) not in trained), "the base has no gradient"
    backbone = Backbone.load(folder, "cpu", "float32")
    backbone.add_adapter(ADAPTER, ADAPTER_CONFIG, seed=9)
    model = RewardModel(backbone, RewardConfig(epochs=1, depth=1.0), seed=9)
    model.prepare_training()
    rows = model.batch([model.row([5, 6], [7 + rank, 8])])
    for how, module in (("alone", model), ("together", DistributedDataParallel(model))):
        model.zero_grad(set_to_none=True)
        module(*rows).sum().backward()
        found |= {f"reward.{how}.{name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    save_file(found, scratch / f"{rank}.safetensors")
    distributed.destroy_process_group()
