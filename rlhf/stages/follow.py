"""What every rank but 0 does in a round: it waits for a task, and calls the function that rank 0 calls in that moment.

Rank 0 tells its tasks where it begins them: `fit` in `stages.reward`, `ppo` and `dpo` in `stages.policy`. Here is no store and no run's
folder: what a task needs comes with it, so that another host needs the base model and rankloop, and nothing else.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from rlhf.config import RoundConfig
from rlhf.data import demonstrations, pairs
from rlhf.models.backbone import Backbone
from rlhf.models.ranks import Ranks, Task
from rlhf.ppo.rollout import add_policy
from rlhf.reward import model as reward_model
from rlhf.reward.model import RewardModel
from rlhf.runs import reward_function
from rlhf.runs.reward_function import RewardFunction
from rlhf.runs.work import NO_PROGRESS
from rlhf.stages.policy import make_ppo
from rlhf.stages.setup import load_backbone, load_outside, make_scorer

log = logging.getLogger("rankloop.worker")


def follow(ranks: Ranks, reward_named: str | None = None) -> None:
    """Does the tasks that rank 0 tells, until the last one.

    Args:
        reward_named: the reward function that the command line names.
    """
    with tempfile.TemporaryDirectory(prefix="rankloop-rank-") as scratch:
        begin = ranks.hear(Path(scratch))
        config = RoundConfig.from_dict(begin.values["config"])
        function = reward_function.load_confirmed(config.reward_function, reward_named)
        backbone = load_backbone(config)
        while (task := ranks.hear(Path(scratch))).name != "end":
            log.info("rank %d of %d: %s", ranks.rank, ranks.count, task.name)
            if task.name == "fit":
                fit(ranks, config, backbone, task, Path(scratch))
            elif task.name == "ppo":
                ppo(ranks, config, backbone, function, task)
            else:
                dpo(ranks, config, backbone, task, Path(scratch))


def fit(ranks: Ranks, config: RoundConfig, backbone: Backbone, task: Task, scratch: Path) -> None:
    """As rank 0 in `stages.reward`."""
    reward_model.fit(
        backbone,
        [pairs.of_row(row) for row in task.values["pairs"]],
        config.reward,
        seed=config.seed,
        scratch=scratch,
        report=lambda *_: None,
        ranks=ranks,
    )


def ppo(ranks: Ranks, config: RoundConfig, backbone: Backbone, function: RewardFunction | None, task: Task) -> None:
    """As rank 0 in `stages.policy`, without rows and checkpoints."""
    reward, train = task.folders["reward"], task.values["train"]
    assert reward is not None, "rank 0 has saved the reward model before"
    if reward_model.ADAPTER in backbone.adapters:
        backbone.delete_adapter(reward_model.ADAPTER)
    outside = load_outside(config, backbone)
    if outside is not None:
        outside.load_scale(reward)
    model = RewardModel.load(backbone, config.reward, reward)
    scorer = make_scorer(config, backbone, model, outside, function, train)
    ideal_answers = [demonstrations.of_row(row) for row in task.values["demonstrations"]]
    trainer = make_ppo(config, backbone, scorer, train, ideal_answers, task.folders["start"], ranks)
    if (checkpoint := task.folders["checkpoint"]) is not None:
        trainer.load(checkpoint)
    while not trainer.done:
        trainer.step()
    trainer.finish()


def dpo(ranks: Ranks, config: RoundConfig, backbone: Backbone, task: Task, scratch: Path) -> None:
    """As rank 0 in `stages.policy`, without rows and the tuned adapter's folder."""
    from rlhf.trl_methods import dpo

    dpo.train(
        backbone,
        [pairs.of_row(row) for row in task.values["pairs"]],
        config.dpo,
        reference=add_policy(backbone, config.adapter, seed=config.seed, start=task.folders["start"]),
        seed=config.seed,
        scratch=scratch,
        on_progress=NO_PROGRESS,
        log=lambda *_: None,
        ranks=ranks,
    )
