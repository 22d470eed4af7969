"""Training targets of preference pairs as tensors, and the loss that the probe and the fine-tuning minimise.

The options for ties, strengths, rankings, annotator weights and the ensemble are turned into weights, margins and target
probabilities. The formulas are in `preference_losses`.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from rlhf.config import RewardConfig
from rlhf.data.pairs import NotEnoughPairs, PreferencePair
from rlhf.reward.preference_losses import bradley_terry, davidson, plackett_luce, rao_kupper
from storage.core.records import Strength

MARGINS: dict[Strength | None, float] = {"significantly": 1.0, "better": 2 / 3, "slightly": 1 / 3, "negligibly": 0.0, None: 0.0}
"""In units of the raw score: the small margins of Touvron 2023 (Llama 2), table 27. A pair without a strength has margin 0."""

TARGETS: dict[Strength | None, float] = {"significantly": 1.0, "better": 0.875, "slightly": 0.75, "negligibly": 0.625, None: 1.0}
"""Probability that the preferred one is better: even steps from a tie, at 1/2, to certainty."""


class PairTargets(NamedTuple):
    """n pairs, for m members of an ensemble."""

    weight: Float[Tensor, "n m"]
    """The mean over all pairs is 1."""
    margin: Float[Tensor, " n"]
    target: Float[Tensor, " n"]
    tie: Bool[Tensor, " n"]
    ranking: Int[Tensor, " n"]
    """Index of the judgment that a pair comes from."""
    stage: Int[Tensor, " n"]
    """Index of its Plackett-Luce stage: pairs of one ranking with the same chosen side."""

    def select(self, rows: Int[Tensor, " k"]) -> PairTargets:
        return PairTargets(*(field[rows] for field in self))

    def to(self, device: torch.device) -> PairTargets:
        return PairTargets(*(field.to(device) for field in self))

    def of_member(self, member: int) -> PairTargets:
        return self._replace(weight=self.weight[:, member : member + 1])


def pair_targets(pairs: Sequence[PreferencePair], config: RewardConfig, *, seed: int) -> PairTargets:
    """The targets of the pairs under the config's options.

    Raises:
        NotEnoughPairs: the pairs of a head have no weight.
    """
    prompt_keys = [json.dumps(p.prompt) for p in pairs]
    ranking = [(p.judgment_id, prompt) for p, prompt in zip(pairs, prompt_keys, strict=True)]
    weight = torch.tensor([p.weight for p in pairs])
    if config.rankings == "plackett-luce":
        # A ranking of K completions has K - 1 stages of weight 1 each; `weight` divides a weight of 1 among K - 1 pairs.
        weight = weight * _plackett_luce_stages(pairs, ranking)
    weight = weight[:, None] * _bootstraps(_numbered(prompt_keys), config.ensemble, seed)
    if len(empty := (weight.sum(0) == 0).nonzero()[:, 0]):
        # Dividing by the mean would make every weight NaN.
        raise NotEnoughPairs(
            f"{len(pairs)} preference pairs, and those of head {int(empty[0]) + 1} of {config.ensemble} all have the weight 0: set "
            "--reward-ensemble 1, leave out --reward-annotator-weights, or judge more comparisons",
            found=0,
            needed=1,
        )
    return PairTargets(
        weight=weight / weight.mean(0),
        margin=torch.tensor([MARGINS[p.strength] if config.strength == "margin" else 0.0 for p in pairs]),
        target=torch.tensor([0.5 if p.tie else TARGETS[p.strength] if config.strength == "soft" else 1.0 for p in pairs]),
        tie=torch.tensor([p.tie for p in pairs]),
        ranking=_numbered(ranking),
        stage=_numbered([(*r, p.chosen) for r, p in zip(ranking, pairs, strict=True)]),
    )


def loss(difference: Float[Tensor, "n m"], labels: PairTargets, tie_logit: Float[Tensor, " m"], config: RewardConfig) -> Float[Tensor, ""]:
    """Weighted mean over pairs and members.

    Args:
        tie_logit: the unbounded parameter of the tie model: how likely ties are. Unused where ties are not modelled.
    """
    if config.rankings == "plackett-luce":
        stage, inverse = labels.stage.unique(return_inverse=True)  # type: ignore[no-untyped-call]  # torch leaves it without types
        # The pairs of one stage share their weight.
        weight = labels.weight.new_zeros(len(stage), labels.weight.shape[1]).index_copy(0, inverse, labels.weight)
        return (weight * plackett_luce(difference, inverse)).mean()
    options = {"margin": labels.margin[:, None], "target": labels.target[:, None]}
    tie = labels.tie[:, None]
    if config.ties == "rao-kupper":
        losses = rao_kupper(difference, tie, threshold=softplus(tie_logit), **options)
    elif config.ties == "davidson":
        losses = davidson(difference, tie, log_nu=tie_logit, **options)
    else:
        losses = bradley_terry(difference, **options)
    return (labels.weight * losses).mean()


def terms(ranking: Mapping[str, Any], labels: PairTargets, config: RewardConfig) -> int:
    """How many terms of the mean in `loss` come from a ranking, each with one for every member.

    Args:
        ranking: its `pairs` are indices into the labels.
    """
    pairs = ranking["pairs"]
    return len(set(labels.stage[pairs].tolist())) if config.rankings == "plackett-luce" else len(pairs)


def fits_tie_logit(labels: PairTargets, config: RewardConfig) -> bool:
    """Whether the tie logit is fitted too. With no tie in the data the loss decreases without bound in it."""
    return config.ties in ("rao-kupper", "davidson") and bool(labels.tie.any())


def _numbered(keys: Sequence[Hashable]) -> Int[Tensor, " n"]:
    """0, 1, 2, ... in the order of first appearance; equal keys have equal numbers."""
    number: dict[Hashable, int] = {}
    return torch.tensor([number.setdefault(key, len(number)) for key in keys])


def _plackett_luce_stages(pairs: Sequence[PreferencePair], ranking: Sequence[Hashable]) -> Float[Tensor, " n"]:
    """Of each pair, the number of completions in its ranking, less one."""
    ranked: dict[Hashable, set[str]] = {}
    for pair, key in zip(pairs, ranking, strict=True):
        ranked.setdefault(key, set()).update((pair.chosen, pair.rejected))
    return torch.tensor([len(ranked[key]) - 1.0 for key in ranking])


def _bootstraps(prompt: Int[Tensor, " n"], members: int, seed: int) -> Float[Tensor, "n m"]:
    """How often each pair's prompt is in each member's bootstrap sample of the prompts.

    Prompts are resampled, not pairs: pairs of one prompt resemble each other. A single head is fitted to every prompt once.
    """
    if members == 1:
        return torch.ones(len(prompt), 1)
    number = int(prompt.max()) + 1
    rng = torch.Generator().manual_seed(seed)
    samples = torch.randint(number, (members, number), generator=rng)
    return torch.stack([row.bincount(minlength=number)[prompt].float() for row in samples], dim=1)
