"""Whether older judgments should count less: `python benchmarks/age_weights.py --data FOLDER`.

FOLDER is what `rankloop loop` wrote: rounds of judgments on answers of different policies. For each round but the first, the laptop
preset's probe learns from its judgments and from those of the rounds before, which count `factor` to the power of their age in
rounds. It is measured on the newest judgments by cross-validation over prompts: no prompt that is measured was learned from. Prints a
table; the differences are of the same pairs, with percentile intervals that resample prompts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from figures import machine
from jaxtyping import Bool, Float, Int

from rlhf import model_files
from rlhf.analysis.validation import credit, grouped_folds
from rlhf.config import RoundConfig
from rlhf.data import pairs
from rlhf.data.pairs import PreferencePair
from rlhf.models.backbone import Backbone
from rlhf.reward.model import RewardModel
from rlhf.reward.probe import Features, fit_probe
from storage.core.data_folder import DataFolder
from storage.core.database import Database
from storage.project import runs

FACTORS = (1.0, 0.7, 0.5, 0.25, 0.0)
FOLDS, REPEATS, RESAMPLES = 10, 5, 2000


def dated(folder: DataFolder, store: Database) -> tuple[RoundConfig, list[PreferencePair], Int[np.ndarray, " n"]]:
    """The last round's options, every pair that teaches, and the round in which each was judged."""
    done = [run for run in reversed(runs.all_runs(store)) if run.status == "done"]
    if len(done) < 2:
        sys.exit(f"{folder.root} has {len(done)} finished rounds: run `rankloop loop --rounds 2` or more there first.")
    snapshots = [[p for p in pairs.read_snapshot(folder.run(run.id)) if p.split == "train" and not p.tie] for run in done]
    known: set[int] = set()
    born: dict[int, int] = {}
    for number, snapshot in enumerate(snapshots):
        born |= {pair.judgment_id: number for pair in snapshot if pair.judgment_id not in known}
        known |= {pair.judgment_id for pair in snapshot}
    return RoundConfig.from_dict(done[-1].config), snapshots[-1], np.array([born[pair.judgment_id] for pair in snapshots[-1]])


def features_of(config: RoundConfig, taught: Sequence[PreferencePair]) -> Features:
    backbone = Backbone.load(model_files.resolve(config.model), config.device, config.dtype)
    model = RewardModel(backbone, config.reward, seed=0)
    rows = [[model.text_row(backbone.encode(pair.prompt), text) for text in (pair.chosen, pair.rejected)] for pair in taught]
    return model.frozen_base_features([chosen for chosen, _ in rows], [rejected for _, rejected in rows])


def right(
    features: Features, weights: Float[torch.Tensor, " n"], prompt: Int[np.ndarray, " n"], newest: Bool[np.ndarray, " n"], l2: float
) -> Float[np.ndarray, " m"]:
    """How often each of the newest pairs is ordered as it was judged, over repeated cross-validations."""
    found = np.zeros(len(prompt))
    learns = (weights > 0).numpy()
    for repeat in range(REPEATS):
        fold = grouped_folds(prompt, FOLDS, np.random.default_rng(repeat))
        for number in range(FOLDS):
            train, test = learns & (fold != number), newest & (fold == number)
            if test.any():
                head = fit_probe(features.chosen[train], features.rejected[train], l2=l2, weights=weights[train])
                found[test] += credit(((features.chosen[test] - features.rejected[test]) @ head).numpy()) / REPEATS
    return found[newest]


def interval(values: Float[np.ndarray, " m"], prompt: Int[np.ndarray, " m"]) -> str:
    rng, groups = np.random.default_rng(0), [values[prompt == number] for number in np.unique(prompt)]
    means = [np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))]).mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return f"{values.mean():+.1%} ({low:+.1%} to {high:+.1%})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="data folder of `rankloop loop`")
    folder = DataFolder(parser.parse_args().data)
    config, taught, born = dated(folder, Database(folder.database))
    features = features_of(config, taught)
    _, prompt = np.unique([str(pair.prompt) for pair in taught], return_inverse=True)
    print(f"{machine()}; {len(taught):,} pairs of {born.max() + 1} rounds, {len(np.unique(prompt))} prompts\n")
    print("| judgments of | factor | accuracy on the newest | difference to all alike |")
    print("| --- | --- | --- | --- |")
    for current in range(1, born.max() + 1):
        newest, known = born == current, born <= current
        alike = None
        for factor in FACTORS:
            age = np.maximum(current - born, 0)
            weights = torch.tensor([p.weight for p in taught]) * torch.from_numpy(np.where(known, float(factor) ** age, 0.0)).float()
            found = right(features, weights, prompt, newest, config.reward.probe_l2)
            alike = found if alike is None else alike
            difference = "" if factor == 1 else interval(found - alike, prompt[newest])
            print(f"| {current + 1} rounds | {factor:g} | {found.mean():.1%} of {newest.sum()} | {difference} |", flush=True)


if __name__ == "__main__":
    main()
