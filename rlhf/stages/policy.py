"""The policy stage: tunes the adapter by PPO, or by one of TRL's methods."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from rlhf.config import RoundConfig
from rlhf.data import pairs
from rlhf.data.demonstrations import Demonstration
from rlhf.models.backbone import Backbone
from rlhf.models.checkpoint import latest_checkpoint, replace_folder
from rlhf.models.ranks import Ranks
from rlhf.ppo import ptx
from rlhf.ppo.remote_rollout import RemoteSampler, remote_sampler
from rlhf.ppo.rollout import POLICY, Sampler, add_policy
from rlhf.ppo.trainer import PPO
from rlhf.reward.scoring import Scorer
from rlhf.runs import typed_json
from rlhf.runs.progress import RunProgress
from rlhf.runs.results import PolicyOutcome
from storage.core.database import Database
from storage.core.records import Message, Prompt
from storage.project import runs

log = logging.getLogger("rankloop.round")


def tune_by_ppo(
    store: Database,
    config: RoundConfig,
    backbone: Backbone,
    scorer: Scorer,
    snapshot: list[pairs.PreferencePair],
    train: list[Prompt],
    ideal_answers: list[Demonstration],
    start: Path | None,
    run_dir: Path,
    progress: RunProgress,
    ranks: Ranks = Ranks(),
    rollouts_key: str = "",
) -> PolicyOutcome:
    """PPO on the training prompts, with a checkpoint after every step; returns how it ended.

    Args:
        start: folder of the adapter that the policy begins with; None for the base.
        rollouts_key: API key of the server that samples the rollouts, where the options name one.

    Raises:
        RolloutServerError: that server does not work, or is not one for this run.
    """
    # Before the checkpoint is read: what fails there failed in this stage.
    progress.stage("ppo")
    messages = [p.messages for p in train]
    ranks.tell(
        "ppo",
        lambda: {"train": messages, "demonstrations": [asdict(d) for d in ideal_answers]},
        {"reward": run_dir / "reward", "start": start, "checkpoint": latest_checkpoint(run_dir / "checkpoint")},
    )
    with sampler_of(config, backbone, rollouts_key, run_dir, progress) as sampler:
        trainer = make_ppo(config, backbone, scorer, messages, ideal_answers, start, ranks, sampler)
        trainer.load(run_dir / "checkpoint")
        stage = progress.resume_at(trainer.step_done / trainer.total)
        stage.total(trainer.total - trainer.step_done)
        # A kill between a step's metrics and its checkpoint leaves metrics of a step that will be repeated.
        for prefix in ("objective/", "policy/", "val/", "loss/", "sampling/"):
            runs.drop_metrics_from(store, progress.run_id, prefix, trainer.step_done + 1)
        if sampler is not None and not trainer.done:
            difference = sampler.check(trainer.prompts, config.sampling.to_sampling())
            progress.log(trainer.step_done, {"sampling/base_logp_difference/max": difference.largest})
        while not trainer.done:
            metrics = trainer.step(stage.part(1))
            progress.log(trainer.step_done, metrics)
            trainer.save(run_dir / "checkpoint")
        outcome = trainer.finish(stage.part(1))
    for name, value in typed_json.to_json(outcome).items():
        log.info("%s: %s", name, value)
    return outcome


@contextmanager
def sampler_of(
    config: RoundConfig, backbone: Backbone, rollouts_key: str, run_dir: Path, progress: RunProgress
) -> Iterator[RemoteSampler | None]:
    """What samples the rollouts, where it is another engine than the trainer's own."""
    if config.rollouts is None:
        yield None
        return
    folder = (run_dir / "rollouts").absolute()
    with remote_sampler(
        backbone, config.rollouts, rollouts_key, folder, progress.run_id, named=config.rollouts_model, on_wait=progress.check
    ) as sampler:
        yield sampler


def make_ppo(
    config: RoundConfig,
    backbone: Backbone,
    scorer: Scorer,
    train: Sequence[Sequence[Message]],
    ideal_answers: Sequence[Demonstration],
    start: Path | None,
    ranks: Ranks,
    sampler: Sampler | None = None,
) -> PPO:
    """The same trainer on every rank."""
    return PPO(
        backbone,
        scorer,
        [backbone.encode(messages) for messages in train],
        config.ppo,
        config.adapter,
        sampling=config.sampling,
        scoring=config.scoring,
        seed=config.seed,
        start=start,
        demonstrations=ptx.encode(backbone, ideal_answers),
        ranks=ranks,
        sampler=sampler,
    )


def tune_by_trl(
    store: Database,
    config: RoundConfig,
    backbone: Backbone,
    scorer: Scorer,
    snapshot: list[pairs.PreferencePair],
    train: list[Prompt],
    ideal_answers: list[Demonstration],
    start: Path | None,
    run_dir: Path,
    progress: RunProgress,
    ranks: Ranks = Ranks(),
) -> PolicyOutcome:
    """DPO, RLOO, GRPO or SFT. These write no checkpoints: a resumed run restarts the stage, unless it had ended."""
    tuned = run_dir / "tuned"
    if tuned.is_dir():
        progress.skip(config.method)
        backbone.load_adapter(POLICY, tuned)
        return PolicyOutcome()
    # Importing TRL's trainers takes seconds, and a round by PPO does not need them.
    from rlhf.trl_methods import tuning

    preferred = [p for p in pairs.of_split(snapshot, "train") if not p.tie]
    stage = progress.stage(config.method)
    for prefix in ("objective/", "policy/", "val/", "loss/", f"{config.method}/"):
        runs.drop_metrics_from(store, progress.run_id, prefix, 0)
    if config.method == "dpo":
        ranks.tell("dpo", lambda: {"pairs": [asdict(pair) for pair in preferred]}, {"start": start})
    reference = add_policy(backbone, config.adapter, seed=config.seed, start=start)
    tuning.train(
        config,
        backbone,
        reference=reference,
        pairs=preferred,
        demonstrations=ideal_answers,
        prompts=[p.messages for p in train],
        scorer=scorer,
        scratch=run_dir / "scratch",
        on_progress=stage,
        log=progress.log,
        ranks=ranks,
    )
    with replace_folder(tuned) as folder:
        backbone.save_adapter(POLICY, folder)
    return PolicyOutcome()
