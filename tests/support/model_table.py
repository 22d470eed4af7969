"""Each stage of a round tried on a tiny random model of each architecture, as the table of docs/reference/models.md.

`python tests/support/model_table.py` writes the page; `tests/rlhf/models/test_architectures.py` compares every row.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import architectures
import torch
import transformers
from learning import user

from rlhf.config import PRESETS, AdapterConfig, AdapterKind, PPOConfig, RewardConfig, SamplingConfig, with_options
from rlhf.data.pairs import PreferencePair
from rlhf.generation.sampling import generator, sample
from rlhf.models.backbone import Backbone
from rlhf.ppo.rollout import POLICY
from rlhf.ppo.trainer import PPO
from rlhf.reward import model as reward_model
from rlhf.reward.model import RewardModel
from rlhf.runs.work import NO_PROGRESS
from rlhf.trl_methods import dpo
from storage.core.records import Sampling

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "models.md"
LORA = AdapterConfig(rank=4, alpha=8)
PAIRS = [PreferencePair(user(f"Question {i}?"), f"good {i}", f"bad {i}", 1.0, "train", "human", i) for i in range(4)]
HEADS = ("architecture", "answers", "reward probe", "reward fine-tuning", "PPO", "DPO", "adapters", "activations kept", "head in parts")


def answers(backbone: Backbone) -> None:
    prompts = [backbone.encode(pair.prompt) for pair in PAIRS[:2]]
    assert len(sample(backbone, prompts, Sampling(max_new_tokens=4), generator(backbone.device, 0))) == 2


def fit(backbone: Backbone, epochs: int) -> RewardModel:
    config = RewardConfig(epochs=epochs, batch_size=2, adapter=LORA, depth=0.5)
    with tempfile.TemporaryDirectory() as scratch:
        model = reward_model.fit(backbone, PAIRS, config, seed=0, scratch=Path(scratch), report=lambda *_: None)
    assert model.head.weight.isfinite().all()
    return model


def ppo(backbone: Backbone) -> None:
    config = PPOConfig(steps=1, batch_size=4, minibatch_size=4, epochs=1)
    prompts = [backbone.encode(pair.prompt) for pair in PAIRS]
    trainer = PPO(backbone, fit(backbone, 0), prompts, config, LORA, sampling=SamplingConfig(max_new_tokens=4), seed=0)
    # Of the first minibatch policy and rollout are the same, so that their ratio is 1.
    ratio = trainer.step()["val/ratio"]
    assert abs(ratio - 1) < 1e-3, f"the ratio of the first minibatch is {ratio:.4f}"


def prefer(backbone: Backbone) -> None:
    backbone.add_adapter(POLICY, LORA, seed=0)
    before = {name: weight.detach().clone() for name, weight in backbone.parameters(POLICY).items()}
    with tempfile.TemporaryDirectory() as folder:
        config = with_options(PRESETS["tiny"], {"dpo-batch-size": 2}).dpo
        dpo.train(backbone, PAIRS, config, seed=0, scratch=Path(folder), on_progress=NO_PROGRESS, log=lambda *_: None)
        assert any(not torch.equal(weight, before[name]) for name, weight in backbone.parameters(POLICY).items())
        backbone.save_adapter(POLICY, Path(folder) / "adapter")
        backbone.load_adapter("loaded", Path(folder) / "adapter")


STAGES: tuple[tuple[bool, Callable[[Backbone], object]], ...] = (
    (False, answers),
    (False, lambda backbone: fit(backbone, 0)),
    (True, lambda backbone: fit(backbone, 1)),
    (True, ppo),
    (True, prefer),
)
"""Each column's trial, and whether it trains a LoRA adapter."""


def row(name: str) -> str:
    """The architecture's row: a mark for each stage that works, and the reason where it does not."""
    backbone = architectures.backbone(name)
    refusals = {kind: backbone.adapter_refusal(AdapterConfig(kind=kind, rank=4, virtual_tokens=3)) for kind in get_args(AdapterKind)}
    cells = ["refused" if trains and refusals["lora"] else _tried(stage, name) for trains, stage in STAGES]
    kinds = ", ".join(kind for kind, reason in refusals.items() if not reason) or "none"
    refused = "".join(f"; not {kind}: {_short(reason)}" for kind, reason in refusals.items() if reason)
    parts, head = backbone.decoder.supports_partial_forward, backbone.has_linear_head
    return f"| {' | '.join([f'`{name}`', *cells, kinds + refused, 'yes' if parts else 'no', 'yes' if head else 'no'])} |"


def _tried(stage: Callable[[Backbone], object], name: str) -> str:
    try:
        stage(architectures.backbone(name))
    except Exception as error:
        return f"fails: {_short(str(error) or type(error).__name__)}"
    return "ok"


def _short(reason: str) -> str:
    first = reason.strip().splitlines()[0].split(". ")[0]
    return first.replace("|", "/").rstrip(".")[:100]


def page(rows: list[str]) -> str:
    version = ".".join(transformers.__version__.split(".")[:2])
    return f"""# Models that were tried

Each architecture as a random model of two layers, with transformers {version}: a few answers, the reward model as a probe and fine-tuned,
one step of PPO, and DPO with saving and loading, all with LoRA. A kind of adapter that a model cannot have is refused before a round
computes anything. *Activations kept*: frozen lower layers are computed once for each answer; where not, training is slower. *Head in
parts*: log-probabilities are computed a few rows at a time; where not, training takes more memory.
`rankloop doctor --model MODEL` tries the same with a real model. This page is written by `python tests/support/model_table.py`, and a test
compares every row.

| {" | ".join(HEADS)} |
| {" | ".join(["---"] * len(HEADS))} |
{chr(10).join(rows)}
"""


if __name__ == "__main__":
    rows = []
    for architecture in architectures.ARCHITECTURES:
        rows.append(row(architecture))
        print(rows[-1], flush=True)
    PAGE.write_text(page(rows))
