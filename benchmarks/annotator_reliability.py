"""What annotator weights give back where some annotators answer at random: `python benchmarks/annotator_reliability.py --data FOLDER`.

Answers of the packaged model and their features come from FOLDER (`reward_model.py` writes the same ones); VADER's sentiment judges. Of
ten annotators three flip coins, the others are right nine times in ten. Prints the table of docs/research/reward-model.md: the accuracy
of the laptop preset's probe on held-out pairs, with weights of 1, with those of `rlhf.data.reliability`, and of what was lost the
share that comes back.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from jaxtyping import Float, Int

from benchmarks.figures import machine, verdict
from benchmarks.reward_model import TOKENS_READ, Clock, Plan, Study
from rlhf.analysis import validation
from rlhf.data import reliability
from rlhf.data.reliability import SharedVotes
from rlhf.reward.probe import fit_probe

LAYER = 18
"""60% of the depth: the laptop preset."""
PLAN = Plan(160, 80, 8, 6, (), 0, (LAYER,), ())
ANNOTATORS, AT_RANDOM = 10, 3
LABEL_NOISE = 0.1
DESIGNS = ((600, 1), (600, 2), (1200, 2), (1200, 3))
"""Votes, and annotators of each comparison."""


def prepared(folder: Path) -> Study:
    """The answers and their features; what is stored is not computed again."""
    study = Study(folder, PLAN, Clock(None))
    study.clock.plan(study.cost_of_answers(len(study.wanted) - len(study.written())))
    study.clock.plan(TOKENS_READ * len(study.wanted))
    study.write_answers()
    study.read_features()
    return study


def accuracy(study: Study, votes: Int[np.ndarray, "n 2"], weights: Float[np.ndarray, " n"]) -> float:
    """The probe's accuracy on all held-out pairs, against the rule."""
    features = study.features("mean", LAYER)
    kept = weights > 0
    chosen, rejected = (features[votes[kept, side]] for side in (0, 1))
    weight = fit_probe(chosen, rejected, l2=1.0, weights=torch.tensor(weights[kept], dtype=torch.float32))
    scores = (features @ weight).numpy()
    *_, heldout = study.comparisons
    return float(validation.credit(scores[heldout[:, 0]] - scores[heldout[:, 1]]).mean())


def one(study: Study, votes: int, overlap: int, seed: int) -> tuple[float, ...]:
    """Accuracies: nobody at random, weights of 1, estimated weights, and without those at random."""
    rng = np.random.default_rng(seed)
    fresh, reused, _ = study.comparisons
    pairs = np.concatenate([rng.permutation(fresh), rng.permutation(reused)])[: votes // overlap]
    pair = np.repeat(np.arange(len(pairs)), overlap)
    annotator = np.concatenate([rng.choice(ANNOTATORS, overlap, replace=False) for _ in pairs])
    is_random = annotator < AT_RANDOM
    slips = rng.random(len(pair)) < LABEL_NOISE
    flips = np.where(is_random, rng.random(len(pair)) < 0.5, slips)
    # `pairs` has the better one first, and its two sides mean nothing to the annotators: they are swapped at random.
    swapped = rng.random(len(pairs)) < 0.5
    first = (flips == swapped[pair]).astype(float)
    shared = np.bincount(pair)[pair] > 1
    told = SharedVotes(np.unique(pair[shared], return_inverse=True)[1], annotator[shared], first[shared], np.ones(shared.sum()))
    estimates = reliability.fit(told, np.zeros(ANNOTATORS), np.zeros(ANNOTATORS))
    weights = np.array([reliability.log_odds(r) for r in estimates.reliability])

    def cast(flipped: np.ndarray) -> np.ndarray:
        return np.where(flipped[:, None], pairs[pair][:, ::-1], pairs[pair])

    ones = np.ones(len(pair))
    return (
        accuracy(study, cast(slips), ones),
        accuracy(study, cast(flips), ones),
        accuracy(study, cast(flips), weights[annotator]),
        accuracy(study, cast(flips), (~is_random).astype(float)),
    )


def row(name: str, results: Sequence[tuple[float, ...]], rng: np.random.Generator) -> tuple[str, float]:
    found = np.array(results)
    nobody, ones, weighted, known = found.mean(axis=0)
    resampled = found[rng.integers(len(found), size=(2000, len(found)))].mean(axis=1)
    back = (resampled[:, 2] - resampled[:, 1]) / np.maximum(1e-6, resampled[:, 0] - resampled[:, 1])
    low, high = np.quantile(back, [0.025, 0.975])
    share = (weighted - ones) / (nobody - ones)
    accuracies = " | ".join(f"{value:.1%}" for value in (nobody, ones, weighted, known))
    return f"| {name} | {accuracies} | {share:.0%} ({low:.0%} to {high:.0%}) |", share


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the study")
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--as-it-is", action="store_true", help="use the answers that are stored, and write no others")
    arguments = parser.parse_args()
    study = Study(arguments.data, PLAN, Clock(None)) if arguments.as_it_is else prepared(arguments.data)
    rng = np.random.default_rng(0)
    print(f"{machine()}; {len(study.answers):,} answers, {arguments.seeds} seeds\n")
    heads = ("votes, annotators of each", "nobody at random", "weights of 1", "estimated weights", "random ones left out", "comes back")
    print(f"| {' | '.join(heads)} |\n|{' --- |' * len(heads)}")
    shares = []
    for votes, overlap in DESIGNS:
        results = [one(study, votes, overlap, seed) for seed in range(arguments.seeds)]
        line, share = row(f"{votes:,}, {overlap}", results, rng)
        print(line, flush=True)
        shares.append(share if overlap > 1 else 1.0)
    print(f"\nhalf of what was lost comes back wherever annotators share comparisons: {verdict(min(shares) >= 0.5)}")


if __name__ == "__main__":
    main()
