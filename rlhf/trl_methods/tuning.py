"""Trains the policy's adapter by the TRL trainer of the round's method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rlhf.config import RoundConfig
from rlhf.data.demonstrations import Demonstration
from rlhf.data.pairs import PreferencePair
from rlhf.models.backbone import Backbone
from rlhf.models.ranks import Ranks
from rlhf.reward.scoring import RewardShaper, Scorer
from rlhf.runs import plan
from rlhf.runs.work import Work
from rlhf.trl_methods import dpo, rloo_grpo, sft
from rlhf.trl_methods.trl_policy import LogCallback
from storage.core.records import Message


def train(
    config: RoundConfig,
    backbone: Backbone,
    *,
    reference: str | None,
    pairs: Sequence[PreferencePair],
    demonstrations: Sequence[Demonstration],
    prompts: Sequence[Sequence[Message]],
    scorer: Scorer,
    scratch: Path,
    on_progress: Work,
    log: LogCallback,
    ranks: Ranks = Ranks(),
) -> None:
    """Trains the adapter POLICY, which must exist.

    Args:
        reference: the reference's adapter; None for the base. SFT has no reference.
        log: gets each step's metrics under their stored names.
        ranks: those that train together, by DPO.
    """

    on_progress.total(plan.work_units(config, len(pairs), len(demonstrations)))

    def log_as_trl(update: int, logged: Mapping[str, float]) -> None:
        log(update, {f"{config.method}/{name}": value for name, value in logged.items()})

    if config.method == "dpo":
        dpo.train(
            backbone,
            pairs,
            config.dpo,
            reference=reference,
            seed=config.seed,
            scratch=scratch,
            on_progress=on_progress,
            log=log_as_trl,
            ranks=ranks,
        )
    elif config.method == "sft":
        sft.train(backbone, demonstrations, config.sft, seed=config.seed, scratch=scratch, on_progress=on_progress, log=log_as_trl)
    else:
        rloo_grpo.train(
            config.method,
            backbone,
            prompts,
            RewardShaper(scorer, config.scoring),
            config.group,
            config.sampling.to_sampling(),
            reference=reference,
            seed=config.seed,
            scratch=scratch,
            on_progress=on_progress,
            log=log,
        )
