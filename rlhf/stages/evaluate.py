"""The evaluate stage: measures the result on held-out prompts, against the base model's answers. Formulas: `rlhf.evaluation`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from rlhf import evaluation
from rlhf.analysis import guards
from rlhf.config import RoundConfig
from rlhf.data import pairs
from rlhf.evaluation import SampledCompletion, by_prompt
from rlhf.models.backbone import Backbone
from rlhf.ppo.rollout import POLICY, REFERENCE, sequence_kl
from rlhf.reward.model import RewardModel
from rlhf.reward.scoring import RewardShaper, Scorer
from rlhf.runs.progress import RunProgress
from rlhf.runs.results import BestOfN, Estimate, PairCounts, RoundResult
from rlhf.runs.token_changes import write as write_token_changes
from rlhf.runs.work import DECODE_COST, NO_PROGRESS, Work
from rlhf.simulation.judges import LabelRule
from rlhf.stages.token_changes import token_changes
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.core.records import Prompt, Sampling
from storage.judging import judgments
from storage.project import runs

T = TypeVar("T")


def evaluate(
    store: Database,
    run_id: str,
    config: RoundConfig,
    backbone: Backbone,
    model: RewardModel,
    scorer: Scorer,
    snapshot: list[pairs.PreferencePair],
    heldout: list[Prompt],
    before: list[SampledCompletion],
    progress: RunProgress,
    cost: Mapping[str, float],
) -> RoundResult:
    """The round's result, measured on held-out prompts."""
    rule = declared_rule(store, snapshot)
    # What scored in training is "the reward model" here, with a model from elsewhere too; the held-out pairs measure the learned one.
    rewarding = scorer if config.reward.model_path else model
    heldout_pairs = pairs.of_split(snapshot, "heldout")
    stage = progress.stage("evaluate")
    stage.total(sum(cost.values()))

    chosen, rejected = evaluation.pair_scores(backbone, model, heldout_pairs, stage.part(cost["pairs"], "heldout_pairs"))
    asked = len(heldout) * config.evaluation.completions_per_prompt
    after = answer_heldout(config, backbone, POLICY, heldout, stage.part(cost["sample"], "policy_answers", count=asked))

    scores_before, scores_after = (
        evaluation.score_completions(backbone, rewarding, heldout, answers, stage.part(cost["score"] / 2, "scores"))
        for answers in (before, after)
    )
    kl = mean_kl(config, backbone, heldout, after, stage.part(cost["kl"], "kl"))
    kl_to_start = mean_kl(config, backbone, heldout, after, NO_PROGRESS, reference=REFERENCE) if REFERENCE in backbone.adapters else None
    save_samples(store, run_id, config, heldout, (before, scores_before), (after, scores_after))
    save_token_changes(store, run_id, config, backbone, heldout, before, after)

    result = RoundResult(
        pairs=PairCounts(sum(p.split == "train" and not p.tie for p in snapshot), len(heldout_pairs)),
        heldout_accuracy=evaluation.accuracy_on_votes(chosen, rejected),
        win_rate_by_reward_model=evaluation.win_rate(by_prompt(after, scores_after), by_prompt(before, scores_before)),
        kl=kl,
        kl_to_start=kl_to_start,
    )
    checks = guards.check(before, after, win_rate=result.win_rate_by_reward_model, kl=kl, config=config.guards)
    result = replace(result, guards=checks)
    if rule is not None:
        result = replace(
            result,
            rule=rule.name,
            heldout_accuracy_on_rule=evaluation.accuracy_on_rule(heldout_pairs, chosen, rejected, rule),
            win_rate=win_rate_by_rule(rule, after, before),
        )
    if config.reward_function is not None:
        win_rate = win_rate_by(scorer, backbone, heldout, after, before, stage.part(cost["reward_function"], "scores"))
        result = replace(result, win_rate_by_reward_function=win_rate)
    if config.evaluation.best_of and kl is not None:
        part = stage.part(cost["best_of_n"], "best_of_n")
        best_of_n = compare_best_of_n(config, backbone, rewarding, scorer, rule, heldout, before, after, kl, part)
        result = replace(result, best_of_n=best_of_n)
    return result


def mean_kl(
    config: RoundConfig,
    backbone: Backbone,
    heldout: list[Prompt],
    answers: list[SampledCompletion],
    on_progress: Work,
    *,
    reference: str | None = None,
) -> float | None:
    """KL of the policy to the base, or to another adapter, on its own answers, in nats per answer; None without answers."""
    if not answers:
        return None
    prompt_ids = {p.id: backbone.encode(p.messages) for p in heldout}
    kl = sequence_kl(
        backbone,
        [prompt_ids[a.prompt_id] for a in answers],
        [a.ids for a in answers],
        config.sampling.temperature,
        batch_size=config.evaluation.batch_size,
        reference=reference,
        on_progress=on_progress,
    )
    return float(kl.mean())


def save_samples(
    store: Database,
    run_id: str,
    config: RoundConfig,
    heldout: list[Prompt],
    before: tuple[list[SampledCompletion], list[float]],
    after: tuple[list[SampledCompletion], list[float]],
) -> None:
    """Writes the answers that the run's page shows, each list with its scores."""
    columns = [shown(config, column) for column in (*before, *after)]
    for prompt, base, base_score, tuned, tuned_score in zip(heldout[: config.evaluation.shown_samples], *columns, strict=True):
        runs.save_sample(store, run_id, prompt.id, before=base.text, score_before=base_score)
        runs.set_sample_after(store, run_id, prompt.id, after=tuned.text, score_after=tuned_score)


def save_token_changes(
    store: Database,
    run_id: str,
    config: RoundConfig,
    backbone: Backbone,
    heldout: list[Prompt],
    before: list[SampledCompletion],
    after: list[SampledCompletion],
) -> None:
    """Writes what tuning changed in the answers that the run's page shows, token by token."""
    answers = shown(config, before), shown(config, after)
    prompts = heldout[: config.evaluation.shown_samples]
    if prompts:
        changes = token_changes(
            backbone, prompts, *answers, temperature=config.sampling.temperature, batch_size=config.evaluation.batch_size
        )
        write_token_changes(DataFolder(store.path.parent).run(run_id), changes)


def win_rate_by_rule(rule: LabelRule, tuned: list[SampledCompletion], base: list[SampledCompletion]) -> Estimate | None:
    return evaluation.win_rate(*(by_prompt(answers, [rule.score(a.text) for a in answers]) for answers in (tuned, base)))


def win_rate_by(
    scorer: Scorer,
    backbone: Backbone,
    heldout: list[Prompt],
    tuned: list[SampledCompletion],
    base: list[SampledCompletion],
    on_progress: Work,
) -> Estimate | None:
    """Win rate under a scorer, which scores the answers of both in one call."""
    scores = evaluation.score_completions(backbone, scorer, heldout, [*base, *tuned], on_progress)
    return evaluation.win_rate(by_prompt(tuned, scores[len(base) :]), by_prompt(base, scores[: len(base)]))


def compare_best_of_n(
    config: RoundConfig,
    backbone: Backbone,
    rewarding: Scorer,
    scorer: Scorer,
    rule: LabelRule | None,
    heldout: list[Prompt],
    before: list[SampledCompletion],
    after: list[SampledCompletion],
    kl: float,
    on_progress: Work,
) -> BestOfN:
    """Best-of-n answers of the base at the policy's KL, under the same two measures as the policy, and the policy beside them."""
    reward_shaper = RewardShaper(scorer, config.scoring)
    candidates_cost, win_rate_cost = config.evaluation.best_of * (DECODE_COST + 1), 2
    on_progress.total(candidates_cost + win_rate_cost)
    chosen, best_of_n = evaluation.best_of_n(
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
        best_of_n,
        win_rate=None if rule is None else win_rate_by_rule(rule, chosen, before),
        win_rate_by_reward_model=win_rate_by(rewarding, backbone, heldout, chosen, before, on_progress.part(win_rate_cost)),
        policy_win_rate=None if rule is None else win_rate_by_rule(rule, after, chosen),
    )


def declared_rule(store: Database, snapshot: list[pairs.PreferencePair]) -> LabelRule | None:
    """The label rule that all simulated annotators of this snapshot share; None if there is none or more than one."""
    judgment_ids = {p.judgment_id for p in snapshot if p.annotator_kind == "simulated"}
    if not judgment_ids:
        return None
    judged = judgments.active(store, kinds=("simulated",))
    rules = {j.annotator.rule for j in judged if j.judgment.id in judgment_ids}
    # The store requires a rule of every simulated annotator.
    label_rules = {LabelRule.from_json(rule) for rule in rules if rule is not None}
    return label_rules.pop() if len(label_rules) == 1 else None


def answer_heldout(
    config: RoundConfig, backbone: Backbone, adapter: str | None, heldout: list[Prompt], on_progress: Work
) -> list[SampledCompletion]:
    return evaluation.sample_completions(
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
    """The items of the answers that the run's page shows: the first answer to each of the first prompts."""
    return of_answers[:: config.evaluation.completions_per_prompt][: config.evaluation.shown_samples]
