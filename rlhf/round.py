"""One round, as one page: snapshot -> reward -> policy -> evaluate -> register.

Every stage saves its result in the run's folder and is skipped when that exists, so a run that was killed resumes at that
stage and ends with the same metrics. Leaves out processes (`worker`, `jobs`) and formulas.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float

from rlhf import evaluation, model_files
from rlhf.analysis import validation
from rlhf.analysis.validation import Validation
from rlhf.config import RoundConfig
from rlhf.data import demonstrations, pairs, reliability
from rlhf.data.demonstrations import Demonstration
from rlhf.evaluation import Answer, by_prompt
from rlhf.generation.engine import sample
from rlhf.generation.sampling import combined_seed
from rlhf.models.backbone import Backbone
from rlhf.models.checkpoint import replace_folder
from rlhf.models.lengths import fitting_data
from rlhf.ppo import ptx
from rlhf.ppo.rollout import POLICY, sequence_kl
from rlhf.ppo.trainer import PPO
from rlhf.reward import model as reward_model
from rlhf.reward import targets
from rlhf.reward.model import RewardModel
from rlhf.reward.probe import Features, minimise
from rlhf.reward.scoring import FunctionReward, RewardShaper, Scorer
from rlhf.runs import plan, reward_function, typed_json
from rlhf.runs.progress import Progress
from rlhf.runs.results import BestOfN, Estimate, PairCounts, PolicyOutcome, RoundResult
from rlhf.runs.work import DECODE_COST, Work
from rlhf.simulation.judges import LabelRule
from storage.content import policies, prompts
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.core.records import PolicyVersion, Prompt, Sampling
from storage.judging import judgments
from storage.project import runs

log = logging.getLogger("rankloop.round")

T = TypeVar("T")


def run_round(store: Database, folder: DataFolder, run_id: str, progress: Progress, reward_named: str | None = None) -> PolicyVersion:
    """Executes one run, from its row in the store to a registered policy version.

    Args:
        reward_named: the reward function that the command line names; a run with a reward function does not start without it.

    Raises:
        RewardFunctionError: the command line and the run's row do not name the same one.
        NotEnoughPairs, NoDemonstrations: before anything is loaded.
        ModelError: the base model is not available.
        ConfigError: the model cannot have the adapters.
        NothingFits: nothing to train on is short enough for it.
        Cancelled: from `progress`, when someone asked for it; the run can be resumed.
    """
    config = RoundConfig.from_dict(runs.readable(store, run_id).config)
    function = reward_function.load_confirmed(config.reward_function, reward_named)
    run_dir = folder.run(run_id)
    snapshot = take_snapshot(store, run_id, config, run_dir)
    ideal_answers = take_demonstrations(store, config, run_dir)
    train, heldout = take_prompts(store, run_dir)
    train_pairs, heldout_pairs = pairs.of_split(snapshot, "train"), pairs.of_split(snapshot, "heldout")
    costs = plan.stage_costs(
        config,
        n_pairs=len(train_pairs),
        n_heldout_pairs=len(heldout_pairs),
        n_heldout=len(heldout),
        n_demonstrations=len(ideal_answers),
    )
    progress.plan({stage: sum(parts.values()) for stage, parts in costs.items()})
    backbone = Backbone.load(model_files.resolve(config.model), config.device, config.dtype)
    backbone.fold_system = config.fold_system
    backbone.limit_rows(config.max_length, virtual_tokens=virtual_tokens(config))
    require_adapters(backbone, config)
    fitting = fitting_data(backbone, config, snapshot, ideal_answers, train, heldout)
    snapshot, ideal_answers, train, heldout = fitting.snapshot, fitting.demonstrations, fitting.train, fitting.heldout
    for left_out in (fitting.template, fitting.report):
        if left_out:
            log.warning("%s", left_out.in_words())

    before = answer_before(store, run_id, config, backbone, heldout, run_dir, progress)
    model = fit_reward(config, backbone, snapshot, train, run_dir, progress, costs["reward"])
    scorer = (
        model
        if function is None or config.reward_function is None
        else FunctionReward(function, config.reward_function, backbone, [p.messages for p in (*train, *heldout)])
    )
    tune = tune_by_ppo if config.method == "ppo" else tune_by_trl
    outcome = tune(store, config, backbone, scorer, snapshot, train, ideal_answers, run_dir, progress)
    measured = evaluate(store, run_id, config, backbone, model, scorer, snapshot, heldout, before, progress, costs["evaluate"])
    version = register(store, folder, run_id, config, backbone, progress)

    result = replace(
        measured,
        stopped_by_kl=outcome.stopped_by_kl,
        best_checkpoint=outcome.best_checkpoint,
        lengths=fitting.report or None,
        template=fitting.template or None,
        policy_version=version.name,
        minutes=sum(progress.seconds().values()) / 60,
        peak_memory_gib=peak_memory_gib(),
    )
    runs.finish(store, run_id, "done", result=result.to_json())
    return version


def require_adapters(backbone: Backbone, config: RoundConfig) -> None:
    """Refuses a round whose model cannot have its adapters, before anything is computed. Raises ConfigError."""
    backbone.require_adapter("adapter-kind", config.adapter)
    if config.reward.epochs:
        depth = reward_model.depth_of(backbone, config.reward)
        backbone.require_adapter("reward-adapter-kind", config.reward.adapter, depth=depth)


def virtual_tokens(config: RoundConfig) -> int:
    """The most learned vectors that an adapter of the round puts before a row."""
    return max((a.virtual_tokens for a in (config.adapter, config.reward.adapter) if a.kind == "prompt"), default=0)


def take_snapshot(store: Database, run_id: str, config: RoundConfig, run_dir: Path) -> list[pairs.PreferencePair]:
    """Freezes the pairs that this run is trained on; a resumed run uses the frozen ones."""
    if not (run_dir / pairs.SNAPSHOT).is_file():
        with store.snapshot():
            collected = pairs.of_store(
                store,
                include_simulated=config.include_simulated,
                ties=config.reward.ties != "drop",
                annotator_weights=(
                    reliability.weights(store, include_simulated=config.include_simulated) if config.reward.annotator_weights else None
                ),
            )
        pairs.require(collected, config.reward.min_pairs)
        pairs.write_snapshot(collected, run_dir)
    frozen = pairs.read_snapshot(run_dir)
    runs.set_snapshot(store, run_id, pairs.manifest(frozen).to_json())
    return frozen


def take_demonstrations(store: Database, config: RoundConfig, run_dir: Path) -> list[Demonstration]:
    """Freezes the demonstrations that this run is trained on, if any."""
    if not demonstrations.wanted(config):
        return []
    if not (run_dir / demonstrations.SNAPSHOT).is_file():
        collected = demonstrations.of_store(store, include_simulated=config.include_simulated)
        demonstrations.require(collected, config)
        demonstrations.write_snapshot(collected, run_dir)
    return demonstrations.read_snapshot(run_dir)


def take_prompts(store: Database, run_dir: Path) -> tuple[list[Prompt], list[Prompt]]:
    """The training and held-out prompts of this run; a resumed run uses those of its start, whatever was imported since."""
    file = run_dir / "prompts.json"
    if not file.is_file():
        write_json_atomic(file, [p.id for p in prompts.of_split(store)])
    frozen = sorted(prompts.many(store, json.loads(file.read_text())).values(), key=lambda p: p.id)
    train, heldout = ([p for p in frozen if p.split == split] for split in ("train", "heldout"))
    return train, heldout


def write_json_atomic(file: Path, value: Any) -> None:
    """Writes JSON atomically: a kill leaves the complete file or none."""
    part = file.with_name(file.name + ".part")
    part.write_text(json.dumps(value))
    part.replace(file)


def answer_before(
    store: Database, run_id: str, config: RoundConfig, backbone: Backbone, heldout: list[Prompt], run_dir: Path, progress: Progress
) -> list[Answer]:
    """The base model's answers to the held-out prompts; saved, so that a resumed run compares with the same ones."""
    file = run_dir / "before.json"
    if file.is_file():
        progress.skip("snapshot")
        return [Answer(**row) for row in json.loads(file.read_text())]
    before = answer_heldout(config, backbone, None, heldout, progress.stage("snapshot"))
    for prompt, answer in zip(heldout[: config.evaluation.shown_samples], shown(config, before), strict=True):
        runs.save_sample(store, run_id, prompt.id, before=answer.text)
    write_json_atomic(file, [asdict(a) for a in before])
    return before


def fit_reward(
    config: RoundConfig,
    backbone: Backbone,
    snapshot: list[pairs.PreferencePair],
    train: list[Prompt],
    run_dir: Path,
    progress: Progress,
    cost: Mapping[str, float],
) -> RewardModel:
    """The reward model, normalised on fresh answers of the base model to training prompts."""
    if RewardModel.is_saved(run_dir / "reward"):
        progress.skip("reward")
        return RewardModel.load(backbone, config.reward, run_dir / "reward")
    train_pairs, heldout_pairs = pairs.of_split(snapshot, "train"), pairs.of_split(snapshot, "heldout")
    stage = progress.stage("reward")
    stage.total(sum(cost.values()))

    def report(step: int, total: int, metrics: dict[str, float], model: RewardModel) -> None:
        progress.log(step, metrics)
        if heldout_pairs and (step == total or step % max(1, total // 4) == 0):
            chosen, rejected = evaluation.pair_scores(backbone, model, heldout_pairs, progress.uncounted)
            if (accuracy := evaluation.accuracy_on_votes(chosen, rejected)) is not None:
                progress.log(step, {"reward/heldout_accuracy": accuracy.value})

    def on_features(features: Features) -> None:
        if runs.get(progress.store, progress.run_id).validation is None:
            result = validate_probe(progress.store, config, train_pairs, features, progress)
            runs.set_validation(progress.store, progress.run_id, result.to_json())

    model = reward_model.fit(
        backbone,
        train_pairs,
        config.reward,
        seed=config.seed,
        scratch=run_dir / "scratch",
        report=report,
        on_progress=stage.part(cost["fit"]),
        on_features=on_features,
    )
    prompt_ids = [backbone.encode(train[i % len(train)].messages) for i in range(config.reward.normalize_samples)]
    seed = combined_seed(config.seed, 1)
    sequences = sample(backbone, prompt_ids, config.sampling.to_sampling(), seed, adapter=None, on_progress=stage.part(cost["sample"]))
    model.normalise([model.row(p, s.ids) for p, s in zip(prompt_ids, sequences, strict=True)], stage.part(cost["normalise"]))
    model.save(run_dir / "reward")
    return model


def validate_probe(
    store: Database, config: RoundConfig, train_pairs: list[pairs.PreferencePair], features: Features, progress: Progress
) -> Validation:
    """Validates the probe that the reward model starts from; for an ensemble, a single head that is fitted to every prompt."""
    labels = targets.pair_targets(train_pairs, replace(config.reward, ensemble=1), seed=config.seed)
    origins = judgments.origins(store, [p.judgment_id for p in train_pairs])

    def fit(mask: Bool[np.ndarray, " n"]) -> Float[np.ndarray, " d"]:
        rows, tie_logit = torch.from_numpy(mask.nonzero()[0]), torch.zeros(1, requires_grad=True)
        subset = labels.select(rows)
        # The pairs of a few annotators may all have weight 0.
        subset = subset._replace(weight=subset.weight / subset.weight.mean(0).clamp(min=1e-12))
        return minimise(
            features.chosen[rows],
            features.rejected[rows],
            lambda d: targets.loss(d[:, None], subset, tie_logit, config.reward),
            l2=config.reward.probe_l2,
            extra_parameters=[tie_logit] if targets.fits_tie_logit(subset, config.reward) else [],
        ).numpy()

    return validation.validate(
        (features.chosen - features.rejected).numpy(),
        [origins[p.judgment_id] for p in train_pairs],
        fit,
        ties=labels.tie.numpy(),
        seed=config.seed,
        on_progress=progress.check,
    )


def tune_by_trl(
    store: Database,
    config: RoundConfig,
    backbone: Backbone,
    scorer: Scorer,
    snapshot: list[pairs.PreferencePair],
    train: list[Prompt],
    ideal_answers: list[Demonstration],
    run_dir: Path,
    progress: Progress,
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
    backbone.add_adapter(POLICY, config.adapter, seed=config.seed)
    tuning.train(
        config,
        backbone,
        pairs=preferred,
        demonstrations=ideal_answers,
        prompts=[p.messages for p in train],
        scorer=scorer,
        scratch=run_dir / "scratch",
        on_progress=stage,
        log=progress.log,
    )
    with replace_folder(tuned) as folder:
        backbone.save_adapter(POLICY, folder)
    return PolicyOutcome()


def tune_by_ppo(
    store: Database,
    config: RoundConfig,
    backbone: Backbone,
    scorer: Scorer,
    snapshot: list[pairs.PreferencePair],
    train: list[Prompt],
    ideal_answers: list[Demonstration],
    run_dir: Path,
    progress: Progress,
) -> PolicyOutcome:
    """PPO on the training prompts, with a checkpoint after every step; returns how it ended."""
    # Before the checkpoint is read: what fails there failed in this stage.
    progress.stage("ppo")
    prompt_ids = [backbone.encode(p.messages) for p in train]
    trainer = PPO(
        backbone,
        scorer,
        prompt_ids,
        config.ppo,
        config.adapter,
        sampling=config.sampling,
        scoring=config.scoring,
        seed=config.seed,
        demonstrations=ptx.encode(backbone, ideal_answers),
    )
    trainer.load(run_dir / "checkpoint")
    stage = progress.resume_at(trainer.step_done / trainer.total)
    stage.total(trainer.total - trainer.step_done)
    # A kill between a step's metrics and its checkpoint leaves metrics of a step that will be repeated.
    for prefix in ("objective/", "policy/", "val/", "loss/"):
        runs.drop_metrics_from(store, progress.run_id, prefix, trainer.step_done + 1)
    while not trainer.done:
        metrics = trainer.step(stage.part(1))
        progress.log(trainer.step_done, metrics)
        trainer.save(run_dir / "checkpoint")
    outcome = trainer.finish(stage.part(1))
    for name, value in typed_json.to_json(outcome).items():
        log.info("%s: %s", name, value)
    return outcome


def evaluate(
    store: Database,
    run_id: str,
    config: RoundConfig,
    backbone: Backbone,
    model: RewardModel,
    scorer: Scorer,
    snapshot: list[pairs.PreferencePair],
    heldout: list[Prompt],
    before: list[Answer],
    progress: Progress,
    cost: Mapping[str, float],
) -> RoundResult:
    """The round's result, measured on held-out prompts."""
    rule = declared_rule(store, snapshot)
    heldout_pairs = pairs.of_split(snapshot, "heldout")
    stage = progress.stage("evaluate")
    stage.total(sum(cost.values()))

    chosen, rejected = evaluation.pair_scores(backbone, model, heldout_pairs, stage.part(cost["pairs"]))
    after = answer_heldout(config, backbone, POLICY, heldout, stage.part(cost["sample"]))

    scores_before, scores_after = (
        evaluation.answer_scores(backbone, model, heldout, answers, stage.part(cost["score"] / 2)) for answers in (before, after)
    )
    kl = mean_kl(config, backbone, heldout, after, stage.part(cost["kl"]))
    save_samples(store, run_id, config, heldout, (before, scores_before), (after, scores_after))

    result = RoundResult(
        pairs=PairCounts(sum(p.split == "train" and not p.tie for p in snapshot), len(heldout_pairs)),
        heldout_accuracy=evaluation.accuracy_on_votes(chosen, rejected),
        win_rate_by_reward_model=evaluation.win_rate(by_prompt(after, scores_after), by_prompt(before, scores_before)),
        kl=kl,
    )
    if rule is not None:
        result = replace(
            result,
            rule=rule.name,
            heldout_accuracy_on_rule=evaluation.accuracy_on_rule(heldout_pairs, chosen, rejected, rule),
            win_rate=win_rate_by_rule(rule, after, before),
        )
    if config.reward_function is not None:
        win_rate = win_rate_by(scorer, backbone, heldout, after, before, stage.part(cost["reward_function"]))
        result = replace(result, win_rate_by_reward_function=win_rate)
    if config.evaluation.best_of and kl is not None:
        beside = compare_best_of_n(config, backbone, model, scorer, rule, heldout, before, kl, stage.part(cost["best_of_n"]))
        result = replace(result, best_of_n=beside)
    return result


def mean_kl(config: RoundConfig, backbone: Backbone, heldout: list[Prompt], answers: list[Answer], on_progress: Work) -> float | None:
    """KL of the policy to the base on its own answers, in nats per answer; None without answers."""
    if not answers:
        return None
    prompt_ids = {p.id: backbone.encode(p.messages) for p in heldout}
    kl = sequence_kl(
        backbone,
        [prompt_ids[a.prompt_id] for a in answers],
        [a.ids for a in answers],
        config.sampling.temperature,
        batch_size=config.evaluation.batch_size,
        on_progress=on_progress,
    )
    return float(kl.mean())


def save_samples(
    store: Database,
    run_id: str,
    config: RoundConfig,
    heldout: list[Prompt],
    before: tuple[list[Answer], list[float]],
    after: tuple[list[Answer], list[float]],
) -> None:
    """Writes the answers that the run's page shows, each list with its scores."""
    columns = [shown(config, column) for column in (*before, *after)]
    for prompt, base, base_score, tuned, tuned_score in zip(heldout[: config.evaluation.shown_samples], *columns, strict=True):
        runs.save_sample(store, run_id, prompt.id, before=base.text, score_before=base_score)
        runs.set_sample_after(store, run_id, prompt.id, after=tuned.text, score_after=tuned_score)


def win_rate_by_rule(rule: LabelRule, tuned: list[Answer], base: list[Answer]) -> Estimate | None:
    return evaluation.win_rate(*(by_prompt(answers, [rule.score(a.text) for a in answers]) for answers in (tuned, base)))


def win_rate_by(
    scorer: Scorer, backbone: Backbone, heldout: list[Prompt], tuned: list[Answer], base: list[Answer], on_progress: Work
) -> Estimate | None:
    """Win rate under a scorer, which scores the answers of both in one call."""
    scores = evaluation.answer_scores(backbone, scorer, heldout, [*base, *tuned], on_progress)
    return evaluation.win_rate(by_prompt(tuned, scores[len(base) :]), by_prompt(base, scores[: len(base)]))


def compare_best_of_n(
    config: RoundConfig,
    backbone: Backbone,
    model: RewardModel,
    scorer: Scorer,
    rule: LabelRule | None,
    heldout: list[Prompt],
    before: list[Answer],
    kl: float,
    on_progress: Work,
) -> BestOfN:
    """Best-of-n answers of the base at the policy's KL, under the same two measures as the policy."""
    reward_shaper = RewardShaper(scorer, config.scoring)
    candidates_cost, win_rate_cost = config.evaluation.best_of * (DECODE_COST + 1), 2
    on_progress.total(candidates_cost + win_rate_cost)
    chosen, beside = evaluation.best_of_n(
        backbone,
        reward_shaper,
        heldout,
        evaluation_sampling(config),
        kl=kl,
        max_n=config.evaluation.best_of,
        per_prompt=config.evaluation.completions_per_prompt,
        seed=config.seed + 3,
        on_progress=on_progress.part(candidates_cost),
    )
    return replace(
        beside,
        win_rate=None if rule is None else win_rate_by_rule(rule, chosen, before),
        win_rate_by_reward_model=win_rate_by(model, backbone, heldout, chosen, before, on_progress.part(win_rate_cost)),
    )


def register(
    store: Database, folder: DataFolder, run_id: str, config: RoundConfig, backbone: Backbone, progress: Progress
) -> PolicyVersion:
    """Saves the tuned adapter where the policy server finds it, and registers it as a policy version."""
    progress.stage("register")
    target = folder.run(run_id) / "policy"
    backbone.save_adapter(POLICY, target)
    base = policies.ensure_base(store, config.model, name=model_files.display_name(config.model))
    version = policies.register_tuned(
        store, name=f"{base.name}-{run_id}", base_model=config.model, adapter_path=str(target.relative_to(folder.root)), run_id=run_id
    )
    progress.close_stage()
    return version


def declared_rule(store: Database, snapshot: list[pairs.PreferencePair]) -> LabelRule | None:
    """The label rule that all simulated annotators of this snapshot share; None if there is none or more than one."""
    judgment_ids = {p.judgment_id for p in snapshot if p.annotator_kind == "simulated"}
    if not judgment_ids:
        return None
    judged = judgments.active(store, kinds=("simulated",))
    rules = {j.annotator.rule for j in judged if j.judgment.id in judgment_ids}
    # The store lets no simulated annotator be without a rule.
    label_rules = {LabelRule.from_json(rule) for rule in rules if rule is not None}
    return label_rules.pop() if len(label_rules) == 1 else None


def answer_heldout(config: RoundConfig, backbone: Backbone, adapter: str | None, heldout: list[Prompt], on_progress: Work) -> list[Answer]:
    return evaluation.answers(
        backbone,
        adapter,
        heldout,
        evaluation_sampling(config),
        per_prompt=config.evaluation.completions_per_prompt,
        seed=config.seed + (1 if adapter is None else 2),
        on_progress=on_progress,
    )


def evaluation_sampling(config: RoundConfig) -> Sampling:
    return Sampling(temperature=config.sampling.temperature, max_new_tokens=config.evaluation.max_new_tokens)


def shown(config: RoundConfig, of_answers: list[T]) -> list[T]:
    """What belongs to the answers that the run's page shows: the first answer to each of the first prompts."""
    return of_answers[:: config.evaluation.completions_per_prompt][: config.evaluation.shown_samples]


def peak_memory_gib() -> float:
    """The most memory this process has held, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**30 if sys.platform == "darwin" else peak / 2**20
