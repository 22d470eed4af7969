"""Several processes that train side by side, as a launcher would start them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from small_ppo import ADAPTER_CONFIG, CONFIG, gradients, scrambled, trainer
from torch import distributed, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from rlhf.config import AdapterConfig, DPOConfig, RewardConfig
from rlhf.data.pairs import PreferencePair
from rlhf.models import ranks as rank_group
from rlhf.models.backbone import Backbone
from rlhf.models.ranks import Ranks
from rlhf.ppo import ptx
from rlhf.ppo.rollout import POLICY, add_policy
from rlhf.reward import model as reward_model
from rlhf.reward.model import ADAPTER, RewardModel, TokenizedExample
from rlhf.runs.rank_processes import environment
from rlhf.runs.work import NO_PROGRESS
from rlhf.trl_methods import dpo

DEMONSTRATIONS = [TokenizedExample([5, 6, 7, 8, 9], 2), TokenizedExample([10, 11, 12], 1)]


def gradients_of_each(folder: Path, scratch: Path, world: int = 2) -> list[dict[str, torch.Tensor]]:
    """Of every rank the gradients by "loss.how.name": of its own batch alone, and of the same batch under what wraps the module.

    That is DistributedDataParallel ("together") and FSDP ("sharded").
    """
    multiprocessing.spawn(_on_rank, args=(world, folder, scratch), nprocs=world)
    return [load_file(scratch / f"{rank}.safetensors") for rank in range(world)]


def _on_rank(rank: int, world: int, folder: Path, scratch: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{scratch / 'rendezvous'}", rank=rank, world_size=world)
    found = {}
    for loss, warmup in (("ppo", 0), ("warmup", 1), ("ptx", 0)):
        # Batches of their own: the same prompts, and other answers.
        ppo = scrambled(trainer(folder, replace(CONFIG, value_warmup=warmup), seed=rank))
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
    model = reward_model_of(folder)
    rows = model.batch([model.row([5, 6], [7 + rank, 8])])
    for how, module in (("alone", model), ("together", DistributedDataParallel(model))):
        model.zero_grad(set_to_none=True)
        module(*rows).sum().backward()
        found |= {f"reward.{how}.{name}": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    found |= _sharded_gradients(rank, folder)
    save_file(found, scratch / f"{rank}.safetensors")
    distributed.destroy_process_group()


def reward_model_of(folder: Path) -> RewardModel:
    backbone = Backbone.load(folder, "cpu", "float32")
    backbone.add_adapter(ADAPTER, ADAPTER_CONFIG, seed=9)
    model = RewardModel(backbone, RewardConfig(epochs=1, depth=1.0), seed=9)
    model.prepare_training()
    return model


def _sharded_gradients(rank: int, folder: Path) -> dict[str, torch.Tensor]:
    """The same gradients where FSDP shards each decoder layer and what is left of the module, and its hooks put the weights together."""
    found = {}
    for loss, warmup in (("ppo", 0), ("warmup", 1), ("ptx", 0)):
        ppo = scrambled(trainer(folder, replace(CONFIG, value_warmup=warmup), seed=rank))
        rollout = ppo.collect(ppo.value_head, NO_PROGRESS)
        weights = shard(ppo.model, ppo.backbone, dict([*ppo.policy.items(), *ppo.value_head.named_parameters()]))
        if loss == "ptx":
            ptx.add_gradients(ppo.model, [ptx.tokens(ppo.backbone, [DEMONSTRATIONS[rank]])], 0.5, adapter=POLICY)
        else:
            gradients(ppo, rollout)
        found |= {f"{loss}.sharded.{name}": p.grad.full_tensor() for name, p in weights().items() if p.grad is not None}
    model = reward_model_of(folder)
    weights = shard(model, model.backbone, {n: p for n, p in model.named_parameters() if p.requires_grad})
    model(*model.batch([model.row([5, 6], [7 + rank, 8])])).sum().backward()
    return found | {f"reward.sharded.{name}": p.grad.full_tensor() for name, p in weights().items()}


def shard(model: nn.Module, backbone: Backbone, weights: dict[str, nn.Parameter]) -> Callable[[], dict[str, DTensor]]:
    """Shards the module; returns what reads the given parameters, which the module holds as sharded ones from now on."""
    # FSDP takes it that ranks begin with the same weights; DistributedDataParallel sends those of rank 0.
    for p in model.parameters():
        distributed.broadcast(p.data, 0)
    names = {id(p): name for name, p in weights.items()}
    paths = {path: names[id(p)] for path, p in model.named_parameters() if id(p) in names}
    assert len(paths) == len(weights)
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    for module in (*backbone.decoder.layers, model):
        fully_shard(module, mesh=mesh)
    return lambda: {paths[path]: p for path, p in model.named_parameters() if path in paths}


def together(folder: Path, scratch: Path, world: int = 2) -> list[dict[str, list[dict[str, float]]]]:
    """Of every rank the metrics of `trained`, and what the calls of `Ranks` gave it."""
    multiprocessing.spawn(_train_on_rank, args=(world, folder, scratch), nprocs=world)
    return [json.loads((scratch / f"{rank}.json").read_text()) for rank in range(world)]


def _train_on_rank(rank: int, world: int, folder: Path, scratch: Path) -> None:
    os.environ |= environment(rank, world, scratch / "rendezvous")
    torch.set_num_threads(1)
    ranks = rank_group.join("cpu")
    found = {"calls": calls(ranks, scratch), **trained(ranks, folder, scratch / f"trl-{rank}")}
    (scratch / f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


def calls(ranks: Ranks, scratch: Path) -> dict[str, object]:
    """Each call of `Ranks` once: a rank's rows are 10 and more on rank 0, 20 and more on rank 1, which has one more of them."""
    rows = torch.arange(2 + ranks.rank) + 10 * (ranks.rank + 1)
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad, unused = torch.tensor([1.0, 10.0 * ranks.rank]), torch.nn.Parameter(torch.zeros(1))
    ranks.sum_gradients([weight, unused])
    found = {
        "place": [ranks.rank, ranks.count],
        "gathered": ranks.gather(rows).tolist(),
        "bools": ranks.gather(rows > 20).tolist(),
        "halves": ranks.gather(rows.bfloat16()).tolist(),
        "right": ranks.gather_padded(rows[None]).tolist(),
        "left": ranks.gather_padded(rows[None, :, None], left=True)[..., 0].tolist(),
        "none of mine": ranks.gather(rows[: ranks.rank]).tolist(),
        "sum": ranks.sum(rows[:2]).tolist(),
        "total": ranks.total(ranks.rank + 0.5),
        "mean": ranks.mean({"a": 1.0 + ranks.rank, "b": 4.0}),
        "gradient": [*weight.grad.tolist(), unused.grad],
    }
    folder = scratch / "sent"
    if ranks.rank == 0:
        folder.mkdir()
        (folder / "weights").write_bytes(bytes(range(256)) * 40)
        (folder / "empty").write_bytes(b"")
        ranks.tell("fit", lambda: {"text": "ä", "list": [1, None]}, {"sent": folder, "none": None})
        ranks.tell("end")
        return found
    task, end = ranks.hear(scratch / "heard"), ranks.hear(scratch / "heard")
    files = {file.name: list(file.read_bytes()) for file in task.folders["sent"].iterdir()}
    return {**found, "task": [task.name, dict(task.values), task.folders["none"], end.name], "files": files}


def pairs() -> list[PreferencePair]:
    """Rankings of two and three completions, so that shares of a batch differ and the last batch has a pair for one rank alone."""
    found = []
    for i in range(5):
        texts = [f"good {i} yes", f"so so {i}", f"bad {'no ' * i}"][: 3 if i % 2 else 2]
        prompt = ({"role": "user", "content": f"Question {i}?"},)
        ranked = [(texts[a], texts[b]) for a in range(len(texts)) for b in range(a + 1, len(texts))]
        found += [PreferencePair(prompt, *sides, 1 / (len(texts) - 1), "train", "human", i) for sides in ranked]
    return [replace(pair, tie=number == 4) for number, pair in enumerate(found)]


def trained(ranks: Ranks, folder: Path, scratch: Path) -> dict[str, list[dict[str, float]]]:
    """The metrics of some steps of PPO, of the reward model's fit and of DPO, with the weights that they end at."""
    each = {"value_init": "reward", "value_warmup": 1, "whiten_rewards": True, "microbatch_size": 1, "ptx_coef": 0.1, "keep": "best"}
    # Layers below the adapter are cached; epochs end early, which the ranks must decide alike.
    config = replace(CONFIG, early_stopping_kl=1e-3, epochs=3, **each)
    options = {"adapter": replace(ADAPTER_CONFIG, top_layers=1), "demonstrations": DEMONSTRATIONS, "learned_reward": True}
    ppo = trainer(folder, config, ranks=ranks, **options)
    steps = [ppo.step() for _ in range(3)]
    ppo.finish()
    found = {"ppo": [*steps, {"weights": _norm(ppo.policy), "values": float(ppo.value_head.weight.detach().norm())}]}
    for name, options in (("fit", {"ensemble": 2, "ties": "soft"}), ("fit rankings", {"rankings": "plackett-luce"})):
        backbone, logged = Backbone.load(folder, "cpu", "float32"), []
        config = RewardConfig(epochs=1, batch_size=4, depth=1.0, adapter=AdapterConfig(rank=2), **options)
        ranked = [p for p in pairs() if not p.tie] if name == "fit rankings" else pairs()
        report = lambda step, total, metrics, model, logged=logged: logged.append({"step": step, **metrics})  # noqa: E731
        model = reward_model.fit(backbone, ranked, config, seed=3, scratch=scratch, report=report, ranks=ranks)
        found[name] = [*logged, {"weights": _norm(backbone.parameters(ADAPTER)), "head": float(model.head.weight.detach().norm())}]
    backbone, logged = Backbone.load(folder, "cpu", "float32"), []
    add_policy(backbone, AdapterConfig(rank=2), seed=3, start=None)
    config = DPOConfig(epochs=2, batch_size=4, learning_rate=1e-3)
    log = lambda step, metrics, logged=logged: logged.append({"step": step, **metrics})  # noqa: E731
    dpo.train(backbone, pairs(), config, seed=3, scratch=scratch, on_progress=NO_PROGRESS, log=log, ranks=ranks)
    return {**found, "dpo": [*logged, {"weights": _norm(backbone.parameters(POLICY))}]}


def _norm(adapter: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([weight.detach().norm() for weight in adapter.values()]).norm())
