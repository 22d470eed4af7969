"""Shared by tests of training: an adapter that is not zero, and a store with judged comparisons."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from rlhf.config import PRESETS, RoundConfig, with_options
from rlhf.models.backbone import Backbone
from rlhf.models.padding import pad_left
from rlhf.ppo import trainer as ppo_trainer
from storage.content import comparisons, completions, policies, prompts
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.core.records import Message, Prompt, Sampling
from storage.judging import judgments
from storage.people import annotators


def user(text: str) -> tuple[Message, ...]:
    return ({"role": "user", "content": text},)


def scramble(backbone: Backbone, adapter: str, *, seed: int = 0, scale: float = 0.1) -> None:
    """Sets an adapter's B matrices, which are 0 at first, to random values."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in backbone.parameters(adapter).items():
            if ".lora_B." in name:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=rng))


def watch_logprobs(monkeypatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Records, for each minibatch of PPO, the log-probabilities of real tokens at the update and at the rollout."""
    seen = []
    real = ppo_trainer.policy_loss

    def spy(new, old, advantages, mask, *, clip, weights=None):
        seen.append((new.detach()[mask], old[mask]))
        return real(new, old, advantages, mask, clip=clip, weights=weights)

    monkeypatch.setattr(ppo_trainer, "policy_loss", spy)
    return seen


@dataclass
class Judged:
    """A store in which a rule judged comparisons of made-up answers."""

    store: Database
    folder: DataFolder
    model: Path

    def prompt(self, text: str, split: str) -> Prompt:
        prompts.add(self.store, [prompts.NewPrompt(user(text), "test", split)], source="test")
        return next(p for p in prompts.of_split(self.store) if p.text == text)

    def comparison(self, prompt: Prompt, first: str, second: str) -> tuple[int, list[int]]:
        base = policies.ensure_base(self.store, str(self.model))
        ids = [
            completions.add(
                self.store,
                prompt_id=prompt.id,
                policy_version_id=base.id,
                text=text,
                sampling=Sampling(),
                seed=0,
                finish_reason="stop",
                latency_s=0.1,
            )
            for text in (first, second)
        ]
        return comparisons.add(self.store, prompt.id, ids, purpose="collect"), ids

    def judge(self, prompt: Prompt, better: str, worse: str, *, rule: str = "sentiment", name: str = "sim") -> None:
        text = json.dumps({"judge": rule, "words": ["yes"] if rule == "lexical" else [], "flip": 0.0})
        annotator = annotators.ensure(self.store, name, kind="simulated", rule=text)
        comparison, (first, second) = self.comparison(prompt, better, worse)
        judgments.add_simulated(self.store, comparison, annotator.id, tiers=((first,), (second,)))

    def fill(self, train: int = 6, heldout: int = 3) -> Judged:
        for i in range(train + heldout):
            prompt = self.prompt(f"Question {i}?", "train" if i < train else "heldout")
            self.judge(prompt, f"good {i}", f"bad {i}")
        return self

    def config(self, **options) -> RoundConfig:
        """Small enough to run in a second; every value that a test depends on is set here and not left to the preset."""
        values = {
            "model": str(self.model),
            "device": "cpu",
            "dtype": "float32",
            "include_simulated": True,
            "min_pairs": 4,
            "reward_epochs": 1,
            "reward_batch_size": 2,
            "reward_normalize_samples": 8,
            "ppo_steps": 2,
            "ppo_batch_size": 8,
            "ppo_minibatch_size": 4,
            "ppo_epochs": 2,
            "sampling_max_new_tokens": 8,
            "evaluation_completions_per_prompt": 1,
            "evaluation_max_new_tokens": 8,
            "evaluation_shown_samples": 2,
        } | options
        return with_options(PRESETS["tiny"], {name.replace("_", "-"): value for name, value in values.items()})


def plain_logprob(model, prompt, answer, temperature=1.0):
    """The log-probability of each token of an answer, by the plain definition, without padding."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1] / temperature
    return logits.log_softmax(-1)[torch.arange(len(answer)), torch.tensor(answer)]


def answered(backbone, text):
    return [*backbone.encode_answer(text), backbone.eos_id]


def logprob(backbone, adapter, prompt, text):
    """The log-probability of a whole answer under one adapter, computed without a batch."""
    ids, asked = answered(backbone, text), backbone.encode(prompt)
    read, mask = pad_left([[*asked, *ids]], backbone.pad_id)
    with torch.no_grad():
        logits = backbone.forward(read, mask, keep=len(ids) + 1, adapter=adapter).logits[0, :-1]
    return float(logits.log_softmax(-1)[torch.arange(len(ids)), torch.tensor(ids)].sum())
