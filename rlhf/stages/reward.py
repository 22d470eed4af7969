"""The reward stage: fits the reward model, validates its probe, and normalises its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from rlhf import evaluation
from rlhf.analysis import validation
from rlhf.analysis.validation import OutsideAgreement, Validation
from rlhf.config import RoundConfig
from rlhf.data import pairs
from rlhf.generation.engine import sample
from rlhf.generation.sampling import combined_seed
from rlhf.models.backbone import Backbone
from rlhf.models.ranks import Ranks
from rlhf.reward import model as reward_model
from rlhf.reward import targets
from rlhf.reward.model import RewardModel
from rlhf.reward.outside import Answered, OutsideRewardModel
from rlhf.reward.probe import Features, minimise
from rlhf.runs.progress import RunProgress
from rlhf.runs.results import Estimate
from storage.core.database import Database
from storage.core.records import Prompt
from storage.judging import judgments
from storage.project import runs


def fit_reward(
    config: RoundConfig,
    backbone: Backbone,
    snapshot: list[pairs.PreferencePair],
    train: list[Prompt],
    run_dir: Path,
    progress: RunProgress,
    cost: Mapping[str, float],
    outside: OutsideRewardModel | None = None,
    ranks: Ranks = Ranks(),
) -> RewardModel:
    """The reward model, normalised on new answers of the base model to training prompts.

    Args:
        ranks: those that fit it together; rank 0 alone validates and normalises it.
        outside: a reward model from elsewhere, which is compared with the votes and normalised on the same answers.
    """
    if RewardModel.is_saved(run_dir / "reward"):
        progress.skip("reward")
        if outside is not None:
            outside.load_scale(run_dir / "reward")
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
            if outside is not None:
                agreed = agreement(outside, heldout_pairs)
                result = replace(result, outside=OutsideAgreement(outside.name, config.reward.model_weight, agreed))
            runs.set_validation(progress.store, progress.run_id, result.to_json())

    ranks.tell("fit", lambda: {"pairs": [asdict(pair) for pair in train_pairs]})
    model = reward_model.fit(
        backbone,
        train_pairs,
        config.reward,
        seed=config.seed,
        scratch=run_dir / "scratch",
        report=report,
        on_progress=stage.part(cost["fit"], "fit"),
        on_features=on_features,
        ranks=ranks,
    )
    prompt_ids = [backbone.encode(train[i % len(train)].messages) for i in range(config.reward.normalize_samples)]
    seed = combined_seed(config.seed, 1)
    part = stage.part(cost["sample"], "scale_answers", count=len(prompt_ids))
    sequences = sample(backbone, prompt_ids, config.sampling.to_sampling(), seed, adapter=None, on_progress=part)
    model.normalise([model.row(p, s.ids) for p, s in zip(prompt_ids, sequences, strict=True)], stage.part(cost["normalise"], "scores"))
    if outside is not None:
        asked = (train[i % len(train)].messages for i in range(config.reward.normalize_samples))
        outside.normalise([Answered(messages, backbone.decode(s.ids)) for messages, s in zip(asked, sequences, strict=True)])
        outside.save_scale(run_dir / "reward")
    model.save(run_dir / "reward")
    return model


def heldout_accuracy(
    backbone: Backbone, model: RewardModel, snapshot: list[pairs.PreferencePair], progress: RunProgress
) -> Estimate | None:
    """The reward model's accuracy on the pairs that measure; None without such pairs."""
    chosen, rejected = evaluation.pair_scores(backbone, model, pairs.of_split(snapshot, "heldout"), progress.uncounted)
    return evaluation.accuracy_on_votes(chosen, rejected)


def agreement(outside: OutsideRewardModel, heldout: list[pairs.PreferencePair]) -> Estimate | None:
    """How often the model prefers what the annotators preferred; ties are left out."""
    measured = [pair for pair in heldout if not pair.tie]
    rows = [Answered(pair.prompt, text) for pair in measured for text in (pair.chosen, pair.rejected)]
    logits = outside.logits(rows) if rows else torch.empty(0)
    return evaluation.accuracy_on_votes(logits[0::2], logits[1::2])


def validate_probe(
    store: Database, config: RoundConfig, train_pairs: list[pairs.PreferencePair], features: Features, progress: RunProgress
) -> Validation:
    """Validates the probe that the reward model starts from; for an ensemble, a single head that is fitted to every prompt."""
    labels = targets.pair_targets(train_pairs, replace(config.reward, ensemble=1), seed=config.seed)
    metadata = judgments.metadata(store, [p.judgment_id for p in train_pairs])

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
        [metadata[p.judgment_id] for p in train_pairs],
        fit,
        ties=labels.tie.numpy(),
        seed=config.seed,
        on_progress=progress.check,
    )
