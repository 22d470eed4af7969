"""One round, as one page: snapshot -> reward -> PPO -> evaluate -> register.

Every stage leaves what it made in the run's folder and is skipped when it is there already, so a run that was killed
goes on where it stood and ends with the same figures. Leaves out processes (`worker`, `jobs`) and formulas.
"""

from __future__ import annotations

import json
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlhf import evaluation, pairs, reward, weights
from rlhf.backbone import Backbone
from rlhf.config import RoundConfig
from rlhf.evaluation import Answer
from rlhf.judges import Judge
from rlhf.ppo import PPO
from rlhf.progress import Progress
from rlhf.reward import RewardModel
from rlhf.rollout import POLICY, sequence_kl
from rlhf.sampling import generator, sample
from storage import judgments, policies, prompts, runs
from storage.database import Database, DataFolder
from storage.records import PolicyVersion, Prompt, Sampling

DECODE_COST = 5
"""A sampled token costs about as much as this many tokens that are only read."""


def run_round(store: Database, folder: DataFolder, run_id: str, progress: Progress) -> PolicyVersion:
    """Takes one run from its row to a registered policy version.

    Raises:
        NotEnoughPairs: before anything is loaded.
        ModelError: the base model cannot be had.
        Cancelled: from `progress`, when someone asked for it; the run can be resumed.
    """
    config = RoundConfig.from_dict(runs.get(store, run_id).config)
    home = folder.run(run_id)
    snapshot = take_snapshot(store, run_id, config, home)
    train, heldout = take_prompts(store, home)
    progress.plan(work(config, len(snapshot), len(heldout)))
    backbone = Backbone.load(weights.resolve(config.model), config.device, config.dtype)

    before = answer_before(store, run_id, config, backbone, heldout, home, progress)
    model = fit_reward(config, backbone, snapshot, train, home, progress)
    tune_policy(store, config, backbone, model, train, home, progress)
    result = evaluate(store, run_id, config, backbone, model, snapshot, heldout, before, progress)
    version = register(store, folder, run_id, config, backbone, progress)

    seconds = progress.seconds()
    result |= {"policy_version": version.name, "minutes": sum(seconds.values()) / 60, "peak_memory_gib": peak_memory_gib()}
    runs.finish(store, run_id, "done", result=result)
    return version


def take_snapshot(store: Database, run_id: str, config: RoundConfig, home: Path) -> list[pairs.PreferencePair]:
    """Freezes the pairs that this run learns from; a resumed run reads the ones it began with."""
    if not (home / pairs.SNAPSHOT).is_file():
        with store.snapshot():
            found = pairs.of_store(store, include_simulated=config.include_simulated)
        pairs.require(found, config.reward.min_pairs)
        pairs.write_snapshot(found, home)
    frozen = pairs.read_snapshot(home)
    runs.set_snapshot(store, run_id, pairs.manifest(frozen))
    return frozen


def take_prompts(store: Database, home: Path) -> tuple[list[Prompt], list[Prompt]]:
    """The training and held-out prompts of this run; a resumed run asks those it began with, whatever was imported since."""
    file = home / "prompts.json"
    if not file.is_file():
        write_whole(file, [p.id for p in prompts.of_split(store)])
    frozen = set(json.loads(file.read_text()))
    return tuple([p for p in prompts.of_split(store, split) if p.id in frozen] for split in ("train", "heldout"))


def write_whole(file: Path, value: Any) -> None:
    """Writes JSON so that a kill leaves the whole file or none."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(value))
    part.replace(file)


def work(config: RoundConfig, n_pairs: int, n_heldout: int) -> dict[str, float]:
    """The round's work by stage, in tokens read; only proportions matter, for the time left."""
    prompt, answer = 60, config.ppo.max_new_tokens
    evaluated = n_heldout * config.evaluation.completions_per_prompt * config.evaluation.max_new_tokens
    ppo_tokens = config.ppo.batch_size * (prompt + answer)
    return {
        "snapshot": evaluated * DECODE_COST,
        "reward": 2 * n_pairs * (prompt + answer) * (1 + 4 * config.reward.epochs) * config.reward.depth,
        "ppo": config.ppo.steps * (config.ppo.batch_size * answer * DECODE_COST + ppo_tokens * (3 + 2 * config.ppo.epochs)),
        "evaluate": evaluated * (DECODE_COST + 4),
        "register": 1,
    }


def answer_before(
    store: Database, run_id: str, config: RoundConfig, backbone: Backbone, heldout: list[Prompt], home: Path, progress: Progress
) -> list[Answer]:
    """The base model's answers to the held-out prompts, kept so that both halves of the comparison exist once."""
    file = home / "before.json"
    if file.is_file():
        progress.skip("snapshot")
        return [Answer(**row) for row in json.loads(file.read_text())]
    progress.stage("snapshot", answer_ticks(config, len(heldout)))
    before = answer_heldout(config, backbone, None, heldout, progress)
    for prompt, answer in shown(config, heldout, before):
        runs.save_sample(store, run_id, prompt.id, before=answer.text)
    write_whole(file, [asdict(a) for a in before])
    return before


def fit_reward(
    config: RoundConfig, backbone: Backbone, snapshot: list[pairs.PreferencePair], train: list[Prompt], home: Path, progress: Progress
) -> RewardModel:
    """The reward model, normalised on fresh answers of the base model to training prompts."""
    if RewardModel.is_saved(home / "reward"):
        progress.skip("reward")
        return RewardModel.load(backbone, config.reward, home / "reward")
    learned_from, measured_on = pairs.of_split(snapshot, "train"), pairs.of_split(snapshot, "heldout")
    updates = config.reward.epochs * -(-len(learned_from) // config.reward.batch_size)
    progress.stage("reward", updates + -(-2 * len(learned_from) // reward.READ_BATCH))

    def report(step: int, total: int, figures: dict[str, float], model: RewardModel) -> None:
        progress.log(step, figures)
        if measured_on and (step == total or step % max(1, total // 4) == 0):
            chosen, rejected = evaluation.pair_scores(backbone, model, measured_on, progress.check)
            progress.log(step, {"reward/heldout_accuracy": evaluation.accuracy_on_votes(chosen, rejected).value})
        progress.tick()

    model = reward.fit(backbone, learned_from, config.reward, seed=config.seed, scratch=home / "scratch", report=report, tick=progress.tick)
    asked = [backbone.encode(train[i % len(train)].messages) for i in range(config.reward.reference_samples)]
    with backbone.using(None):
        drawn = sample(backbone, asked, ppo_sampling(config), generator(backbone.device, config.seed, 1), progress.check)
    model.normalise([model.row(p, s.ids) for p, s in zip(asked, drawn, strict=True)], progress.check)
    model.save(home / "reward")
    return model


def tune_policy(
    store: Database, config: RoundConfig, backbone: Backbone, model: RewardModel, train: list[Prompt], home: Path, progress: Progress
) -> PPO:
    """PPO on the training prompts, with a checkpoint after every step."""
    asked = [backbone.encode(p.messages) for p in train]
    trainer = PPO(backbone, model, asked, config.ppo, seed=config.seed)
    trainer.load(home / "checkpoint")
    minibatches = -(-config.ppo.batch_size // config.ppo.minibatch_size)
    per_step = config.ppo.max_new_tokens + 2 + minibatches * (1 + config.ppo.epochs)
    progress.stage("ppo", config.ppo.steps * per_step, done=trainer.step_done * per_step)
    # A kill between a step's figures and its checkpoint leaves figures of a step that will be taken again.
    for prefix in ("objective/", "policy/", "val/", "loss/"):
        runs.drop_metrics_from(store, progress.run_id, prefix, trainer.step_done + 1)
    while trainer.step_done < config.ppo.steps:
        figures = trainer.step(progress.tick)
        progress.log(trainer.step_done, figures)
        trainer.save(home / "checkpoint")
    return trainer


def evaluate(
    store: Database,
    run_id: str,
    config: RoundConfig,
    backbone: Backbone,
    model: RewardModel,
    snapshot: list[pairs.PreferencePair],
    heldout: list[Prompt],
    before: list[Answer],
    progress: Progress,
) -> dict:
    """Everything that is reported of the round, on prompts that nothing was learned from."""
    progress.stage("evaluate", answer_ticks(config, len(heldout)) + len(before) // 4)
    judge = declared_rule(store, snapshot)
    measured_on = pairs.of_split(snapshot, "heldout")
    chosen, rejected = evaluation.pair_scores(backbone, model, measured_on, progress.tick)
    after = answer_heldout(config, backbone, POLICY, heldout, progress)

    asked = {p.id: backbone.encode(p.messages) for p in heldout}
    scores_before, scores_after = (
        model.score([model.row(asked[a.prompt_id], a.ids) for a in drawn], tick=progress.tick) for drawn in (before, after)
    )
    by_score = {id(a): s for a, s in zip([*before, *after], [*scores_before.tolist(), *scores_after.tolist()], strict=True)}
    kl = sequence_kl(
        backbone, [asked[a.prompt_id] for a in after], [a.ids for a in after], config.ppo.temperature,
        batch_size=config.ppo.minibatch_size, tick=progress.tick,
    )
    for (prompt, was), (_, is_now) in zip(shown(config, heldout, before), shown(config, heldout, after), strict=True):
        runs.save_sample(store, run_id, prompt.id, before=was.text, score_before=by_score[id(was)])
        runs.set_sample_after(store, run_id, prompt.id, after=is_now.text, score_after=by_score[id(is_now)])

    figures = {
        "heldout_accuracy": evaluation.accuracy_on_votes(chosen, rejected),
        "win_rate_by_reward_model": evaluation.win_rate(after, before, lambda a: by_score[id(a)]),
    }
    if judge is not None:
        figures["heldout_accuracy_on_rule"] = evaluation.accuracy_on_rule(measured_on, chosen, rejected, judge)
        figures["win_rate"] = evaluation.win_rate(after, before, lambda a: judge.score(a.text))
    return {
        "rule": judge.name if judge else None,
        **({"kl": float(kl.mean())} if after else {}),
        "pairs": {"train": len(snapshot) - len(measured_on), "heldout": len(measured_on)},
        **{name: e.to_dict() for name, e in figures.items() if e is not None},
    }


def register(
    store: Database, folder: DataFolder, run_id: str, config: RoundConfig, backbone: Backbone, progress: Progress
) -> PolicyVersion:
    """Puts the tuned adapter where the policy server finds it, and names it."""
    progress.stage("register", 1)
    target = folder.run(run_id) / "policy"
    backbone.save_adapter(POLICY, target)
    base = policies.ensure_base(store, config.model, name=weights.display_name(config.model))
    version = policies.register_tuned(
        store, name=f"{base.name}-{run_id}", base_model=config.model, adapter_path=str(target.relative_to(folder.root)), run_id=run_id
    )
    progress.close_stage()
    return version


def declared_rule(store: Database, snapshot: list[pairs.PreferencePair]) -> Judge | None:
    """The one rule that all simulated annotators behind this snapshot judge by; None if there is no such rule."""
    behind = {p.judgment_id for p in snapshot if p.annotator_kind == "simulated"}
    if not behind:
        return None
    judged = judgments.standing(store, kinds=("simulated",))
    judges = {Judge.from_json(rule) for rule in {j.annotator.rule for j in judged if j.judgment.id in behind}}
    return judges.pop() if len(judges) == 1 else None


def answer_heldout(
    config: RoundConfig, backbone: Backbone, adapter: str | None, heldout: list[Prompt], progress: Progress
) -> list[Answer]:
    sampling = Sampling(temperature=config.ppo.temperature, max_new_tokens=config.evaluation.max_new_tokens)
    return evaluation.answers(
        backbone, adapter, heldout, sampling, per_prompt=config.evaluation.completions_per_prompt,
        seed=config.seed + (1 if adapter is None else 2), tick=progress.tick,
    )


def answer_ticks(config: RoundConfig, n_heldout: int) -> int:
    batches = -(-n_heldout * config.evaluation.completions_per_prompt // evaluation.BATCH_SIZE)
    return batches * config.evaluation.max_new_tokens


def shown(config: RoundConfig, heldout: list[Prompt], drawn: list[Answer]) -> list[tuple[Prompt, Answer]]:
    """The first answer to each of the prompts that the page shows."""
    step = config.evaluation.completions_per_prompt
    return list(zip(heldout, drawn[::step], strict=True))[: config.evaluation.shown_samples]


def ppo_sampling(config: RoundConfig) -> Sampling:
    return Sampling(temperature=config.ppo.temperature, max_new_tokens=config.ppo.max_new_tokens)


def peak_memory_gib() -> float:
    """The most memory this process has held, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20
